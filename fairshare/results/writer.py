"""One cell while it runs: a ``.partial`` folder that grows and becomes complete by one rename."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import yaml

from fairshare.records import CellResult, RequestRecord
from fairshare.results import layout
from fairshare.results.files import sync_folder, write_all, write_atomic, writing

_FLUSH_RECORDS = 1000
_FLUSH_BYTES = 1 << 20
_FLUSH_S = 1.0


class CellWriter:
    """Takes the records of the cell in flight. Made by ``ResultStore.begin_cell``.

    Records are buffered and handed to the kernel every second, every 1000 records or every
    MiB, whichever comes first, so a killed run loses this cell at most.
    """

    def __init__(self, final_dir: Path) -> None:
        self.final_dir = final_dir
        self.dir = final_dir.with_name(final_dir.name + layout.PARTIAL)
        """Where other writers (telemetry, server logs) may put their files of this cell."""
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._flushed_s = time.monotonic()
        self._requests = self.dir / layout.REQUESTS
        with writing(self.dir):
            if self.dir.exists():
                shutil.rmtree(self.dir)  # what a killed run left of the same cell
            self.dir.mkdir(parents=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._descriptor: int | None = os.open(self._requests, flags, 0o644)

    def append(self, record: RequestRecord) -> None:
        """Add one record.

        Raises:
            StoppedEarlyError: the disk is full.
        """
        line = record.to_json() + b"\n"
        self._buffer.append(line)
        self._buffered_bytes += len(line)
        if (
            len(self._buffer) >= _FLUSH_RECORDS
            or self._buffered_bytes >= _FLUSH_BYTES
            or time.monotonic() - self._flushed_s >= _FLUSH_S
        ):
            self.flush()

    def flush(self) -> None:
        """Hand what is buffered to the kernel: from here on it survives our own death."""
        self._flushed_s = time.monotonic()
        if not self._buffer or self._descriptor is None:
            return
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._buffered_bytes = 0
        with writing(self._requests):
            write_all(self._descriptor, data)

    def write_config(self, config: dict[str, Any]) -> None:
        """Write ``config.resolved.yaml``: everything that defines the cell, defaults included."""
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        write_atomic(self.dir / layout.CONFIG, text.encode())

    def finish(self, result: CellResult) -> Path:
        """Complete the cell: its files reach the disk, then its folder gets its final name.

        A complete cell of the same id is replaced. Returns the final folder.
        """
        self._close(result)
        put_in_place(self.dir, self.final_dir)
        return self.final_dir

    def abandon(self, result: CellResult) -> Path:
        """Give the cell up: what was recorded stays in the ``.partial`` folder, with the reason.

        A later run with the same cell starts it anew. Returns the folder.
        """
        self._close(result)
        return self.dir

    def _close(self, result: CellResult) -> None:
        if self._descriptor is None:
            raise RuntimeError("the cell has ended already")
        self.flush()
        with writing(self._requests):
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
        write_atomic(self.dir / layout.CELL, result.to_json())


def put_in_place(partial: Path, final: Path) -> None:
    """Give a cell's folder, whose files are on the disk, its final name.

    Raises:
        StoppedEarlyError: the disk is full.
        ResultsError: it cannot be renamed.
    """
    with writing(final):
        replaced = final.with_name(final.name + layout.REPLACED)
        if final.exists():
            final.rename(replaced)
        partial.rename(final)
        sync_folder(final.parent)
        shutil.rmtree(replaced, ignore_errors=True)
