"""Folders seen without making them."""

from __future__ import annotations

import os
from pathlib import Path


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    path = folder.expanduser().absolute()
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def free_bytes(folder: Path) -> int | None:
    """What may still be written there; None where the file system does not tell."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize
