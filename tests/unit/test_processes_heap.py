"""How memory of a process that runs for days is laid out."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
from fairshare.processes.heap import keep_large_apart

names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
Info = type("Info", (ctypes.Structure,), {"_fields_": [(n, ctypes.c_size_t) for n in names]})
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
keep_large_apart()
for _ in range(2):  # without it the first one's end lets the second one into the heap
    before = libc.mallinfo2().hblkhd
    block = libc.malloc(2 << 20)
    print(libc.mallinfo2().hblkhd - before >> 20)
    libc.free(block)
"""


def test_large_blocks_stay_out_of_the_heap() -> None:
    """A block of 2 MiB is given back when it is freed, however often one is made anew."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    if "mallinfo2" in done.stderr:
        pytest.skip("the C library is not a glibc of 2.33 or later")
    assert done.stdout.split() == ["2", "2"], done.stderr
