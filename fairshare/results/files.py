"""Writing files so that a crash leaves the old contents or the new ones, never half of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairshare.errors import Location, ResultsError, StoppedEarlyError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write ``path`` into an error for people.

    Raises:
        StoppedEarlyError: the disk or the quota is full.
        ResultsError: anything else that keeps us from writing there.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoppedEarlyError(
                f"no space left to write {path}",
                hint="free some space, then run the same command with --resume: "
                "complete cells are kept",
            ) from error
        raise ResultsError(
            f"cannot write {path}: {error.strerror or error}",
            hint="choose a folder you may write to with --output-dir",
        ) from error


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``; the kernel may take it in pieces."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``, completely or not at all, and flush it to the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def read_bytes(path: Path) -> bytes:
    """The contents of a file of a result folder.

    Raises:
        ResultsError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ResultsError(
            f"cannot be read: {error.strerror or error}", where=Location(path)
        ) from error


def ends_at_a_line(path: Path) -> bool:
    """Whether a file of lines is empty or ends with a line end.

    Raises:
        ResultsError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except OSError as error:
        raise ResultsError(
            f"cannot be read: {error.strerror or error}", where=Location(path)
        ) from error
