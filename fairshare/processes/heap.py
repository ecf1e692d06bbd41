"""How memory of a process that runs for days is laid out."""

from __future__ import annotations

import contextlib
import ctypes

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE_BYTES = 512 << 10


def keep_large_apart() -> None:
    """Have the C allocator keep large blocks apart for good; does nothing where it is not glibc's.

    The table of Python's interned strings (2 MiB) is made anew every few dozen cells. glibc keeps
    it apart the first time, then takes such blocks from the heap, where small ones come to lie in
    the place that the last one left: a long sweep grew by 2 MiB each time, and used none of it.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
