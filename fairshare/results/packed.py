"""Lines of result files, which may have been packed with gzip to be kept for long."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from fairshare.errors import Location, ResultsError

PACKED = ".gz"


def stored(path: Path) -> Path | None:
    """The file, or ``<file>.gz`` in its place; None if there is neither."""
    if path.exists():
        return path
    packed = path.with_name(path.name + PACKED)
    return packed if packed.exists() else None


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A stored file's contents, unpacked as they are read.

    Raises:
        ResultsError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            # A GzipFile does all that is asked of a file here, though it is no BinaryIO by name.
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if path.suffix == PACKED else file
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResultsError(f"cannot be read: {reason}", where=Location(path)) from error
