"""Parts of the logs of servers: bounded, since a server may write without end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

MOST_PART_BYTES = 16 << 20
"""What a cell keeps of a log at most: half of it from the beginning, half from the end."""
MOST_LOG_BYTES = 32 << 20
"""Above, a log begins anew between two cells: what it held is in the parts of the cells."""
_KEPT_BYTES = 1 << 20


def copy_part(log: Path, begin: int, target: Path) -> int:
    """Copy what a log holds from ``begin`` on; returns where the next part begins.

    Of more than ``MOST_PART_BYTES`` the middle is left out, and a line says so.
    """
    with log.open("rb") as source, target.open("wb") as copy:
        end = os.fstat(source.fileno()).st_size
        source.seek(begin)
        if end - begin > MOST_PART_BYTES:
            copy.write(source.read(MOST_PART_BYTES // 2))
            resumed = end - MOST_PART_BYTES // 2
            left_out = resumed - source.tell()
            copy.write(f"\n[... fairshare left out {left_out} bytes here ...]\n".encode())
            source.seek(resumed)
        shutil.copyfileobj(source, copy)
        return source.tell()


def begin_anew(log: Path, copied: int) -> int:
    """Cut a log that has grown too long down to its end; returns where the next part begins.

    ``copied`` is how far it has been copied. Its server goes on appending to the same file.
    """
    if copied <= MOST_LOG_BYTES:
        return copied
    descriptor = os.open(log, os.O_RDWR | os.O_APPEND)
    try:
        kept = os.pread(descriptor, _KEPT_BYTES, copied - _KEPT_BYTES)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, kept)
    finally:
        os.close(descriptor)
    return len(kept)
