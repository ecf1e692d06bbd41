"""Calls that may never return: into a wedged driver, or to a dead file server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from fairshare.errors import PreflightError

T = TypeVar("T")


def bounded(call: Callable[[], T], what: str, bound_s: float) -> T:
    """What ``call`` returns or raises, in a thread that is left behind when it hangs.

    Raises:
        PreflightError: it did not return in time; ``what`` names it.
    """
    returned: list[T] = []
    raised: list[Exception] = []

    def run() -> None:
        try:
            returned.append(call())
        except Exception as error:  # handed over to the caller, whatever it is
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(bound_s)
    if raised:
        raise raised[0]
    if not returned:
        raise PreflightError(
            f"{what} did not answer within {bound_s:g} s",
            hint="sudo dmesg | grep -i -e nvrm -e nvidia shows why; a reboot may be needed",
        )
    return returned[0]
