"""The two ``prctl`` calls that Python does not offer."""

from __future__ import annotations

import ctypes
import os

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_GET_CHILD_SUBREAPER = 37
# Bound here, once: a child between fork and exec must not load a library.
_prctl = ctypes.CDLL(None, use_errno=True).prctl
_prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


def signal_on_parent_death(number: int) -> None:
    """Have the kernel send this process a signal when the thread that forked it ends."""
    _call(_PR_SET_PDEATHSIG, number)


def set_child_subreaper(on: bool) -> bool:
    """Adopt orphaned descendants instead of leaving them to init; return what it was before."""
    before = ctypes.c_int()
    _call(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(before))
    _call(_PR_SET_CHILD_SUBREAPER, int(on))
    return bool(before.value)


def _call(option: int, argument: int) -> None:
    if _prctl(option, argument, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
