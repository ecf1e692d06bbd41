"""What a run leaves on disk: the names of its files, how they are written, how they are read."""

from __future__ import annotations

from fairshare.results.store import ResultStore, StoredCell
from fairshare.results.writer import CellWriter

__all__ = ["CellWriter", "ResultStore", "StoredCell"]
