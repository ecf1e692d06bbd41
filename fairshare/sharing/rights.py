"""Whose rights driver tools run with: only changes of the driver are privileged.

Root changes the driver as it is, and so does anybody on a simulated GPU. Everybody else asks sudo,
which must not ask back; where it refuses, the tool is tried as it is, since a user may have been
given the right to arrange MIG instances by file permissions.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping

from fairshare import users
from fairshare.devices.driver import STATE_VARIABLE

SUDO = ("sudo", "-n", "--")
HINT = (
    "changing the driver needs root: run fairshare with sudo, or let sudo run nvidia-smi without "
    "a password, or, for MIG instances alone, make "
    "/proc/driver/nvidia/capabilities/mig/config readable"
)


def prefix(env: Mapping[str, str]) -> tuple[str, ...]:
    """What to put before a command that changes the driver which ``env`` leads to."""
    if users.has_root() or STATE_VARIABLE in env:
        return ()
    return SUDO if shutil.which(SUDO[0], path=env.get("PATH")) else ()


def in_child(env: Mapping[str, str]) -> Callable[[], None] | None:
    """What gives a command that changes the driver root's rights where we hold them back."""
    return users.make_root if users.stepped_back() and STATE_VARIABLE not in env else None


def sudo_refused(returncode: int, output: str) -> bool:
    """Whether these are sudo's own words, and the command was never run (its language is C)."""
    return returncode == 1 and output.lstrip().startswith(("sudo:", "Sorry, user"))
