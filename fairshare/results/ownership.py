"""Who writes into a result folder: one run at a time, on whatever device."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairshare.errors import ResultsError
from fairshare.results.files import writing

_NO_LOCKS_HERE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def sole_writer(directory: Path) -> Iterator[None]:
    """Hold the folder, made if need be, while the block lasts; the kernel lets go of it for us.

    Where the file system knows no locks nobody is kept out.

    Raises:
        ResultsError: another run writes into it, or it cannot be made.
    """
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResultsError(
                f"another run writes into {directory}",
                hint="wait for it (fairshare status shows it), or choose another --output-dir",
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
        yield
    finally:
        os.close(descriptor)
