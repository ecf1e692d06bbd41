"""Whose rights this process has: under sudo those of the user behind it, and root's when needed.

`step_back` gives up root's rights but for the saved user id. Everything that is then started or
written is the user's: the kernel takes the saved id from a program that is executed, so no child
has root's rights, and the process itself takes them again where it must (`as_root`, `make_root`).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from fairshare.errors import PreflightError

_PR_SET_DUMPABLE = 4


@dataclass(frozen=True, slots=True)
class User:
    """A user of this machine."""

    uid: int
    gid: int
    name: str
    home: Path


def behind_sudo() -> User | None:
    """The user who called sudo, if this process was started so and is not root's own."""
    uid = os.environ.get("SUDO_UID", "")
    if 0 not in os.getresuid() or not uid.isdecimal() or int(uid) == 0:
        return None
    try:
        entry = pwd.getpwuid(int(uid))
    except (KeyError, OverflowError):
        return None
    return User(entry.pw_uid, entry.pw_gid, entry.pw_name, Path(entry.pw_dir))


def step_back() -> None:
    """Under sudo, go on as the user behind it; does nothing otherwise.

    Raises:
        PreflightError: that user may not read this installation, so no server could be started.
    """
    user = behind_sudo()
    if user is None or os.geteuid() != 0:
        return
    os.initgroups(user.name, user.gid)
    os.setresgid(user.gid, user.gid, 0)
    os.setresuid(user.uid, user.uid, 0)
    _own_proc()
    os.environ.update(HOME=str(user.home), USER=user.name, LOGNAME=user.name)
    for path, needed in ((sys.executable, os.X_OK), (__file__, os.R_OK)):
        if not os.access(path, needed):
            raise PreflightError(
                f"servers run as {user.name}, who called sudo, and who may not use {path}",
                hint=f"install fairshare where {user.name} can read it; only if servers are to "
                "run as root: env -u SUDO_UID fairshare ...",
            )


def has_root() -> bool:
    """Whether this process is root, or can be."""
    return 0 in os.getresuid()


def stepped_back() -> bool:
    """Whether root's rights are in reserve, and what is started now does not get them."""
    return has_root() and os.getuid() != 0


class ChildIds(TypedDict, total=False):
    """Arguments of ``subprocess.Popen``."""

    user: int
    group: int
    extra_groups: list[int]


def root_ids() -> ChildIds:
    """What makes a child wholly root's that is started inside `as_root`."""
    return {"user": 0, "group": 0, "extra_groups": []} if stepped_back() else {}


def make_root() -> None:
    """Take root's rights for good; for a child between its fork and its exec."""
    os.setresuid(0, 0, 0)
    os.setresgid(0, 0, 0)
    os.setgroups([])


@contextlib.contextmanager
def as_root() -> Iterator[None]:
    """Have root's rights while the block lasts, in all threads, if this process stepped back."""
    uid = os.geteuid()
    if uid == 0 or not has_root():
        yield
        return
    os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(uid)
        _own_proc()


def is_ours(uid: int) -> bool:
    """Whether what belongs to this user id may be something that we have made."""
    user = behind_sudo()
    return uid == os.geteuid() or (user is not None and uid == user.uid)


def _own_proc() -> None:
    """Be allowed to read ``/proc/self``, which the kernel takes from whoever changes users."""
    import ctypes  # noqa: PLC0415 - only under sudo

    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
