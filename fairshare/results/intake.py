"""A result folder's cells and logs as they come in from other machines."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

import orjson

from fairshare.errors import Location, ResultsError
from fairshare.records import CellResult
from fairshare.results import layout
from fairshare.results.files import read_bytes, write_atomic, writing
from fairshare.results.store import ResultStore
from fairshare.results.writer import put_in_place


class Intake:
    """Takes what one machine sends for one deployment; ``machine`` is its name in the results."""

    def __init__(self, store: ResultStore, machine: str) -> None:
        self._store = store
        self._machine = machine
        self._logs: dict[str, Path] = {}

    def add(self, path: str, data: bytes, *, first: bool) -> None:
        """The next bytes of a file; ``first`` begins it, and a cell with it.

        Raises:
            StoppedEarlyError: the disk is full.
            ResultsError: it cannot be written, or lies outside of what may be sent.
        """
        target = self._target(PurePosixPath(path))
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb" if first else "ab") as file:
                file.write(data)

    def finish(self, folder: str, *, complete: bool) -> CellResult:
        """Complete a cell whose files have all come, or leave it given up; its result.

        Raises:
            StoppedEarlyError: the disk is full.
            ResultsError: its ``cell.json`` is damaged, or the folder cannot be renamed.
        """
        final = self._store.cells_dir / folder
        partial = final.with_name(folder + layout.PARTIAL)
        path = partial / layout.CELL
        try:
            result = CellResult.from_mapping(orjson.loads(read_bytes(path)))
        except (ValueError, TypeError, KeyError) as error:
            raise ResultsError(f"damaged: {error}", where=Location(path)) from error
        result.machine = self._machine
        for each in partial.rglob("*"):
            if each.is_file():
                _to_disk(each)
        write_atomic(path, result.to_json())
        if complete:
            put_in_place(partial, final)
        return result

    def begin(self, cell_id: str) -> None:
        """Remove what an earlier try left of a cell."""
        final = self._store.recovered(cell_id)
        with writing(final):
            shutil.rmtree(final.with_name(final.name + layout.PARTIAL), ignore_errors=True)

    def _target(self, path: PurePosixPath) -> Path:
        top, name, *rest = path.parts if len(path.parts) > 2 else ("", "", "")
        if ".." in path.parts or top not in (layout.CELLS, layout.SERVERS):
            raise ResultsError(f"{self._machine} sent a file that is none of a result: {path}")
        if top == layout.CELLS:
            return self._store.cells_dir.joinpath(name + layout.PARTIAL, *rest)
        return self._log_folder(name).joinpath(*rest)

    def _log_folder(self, name: str) -> Path:
        """A folder of its own: another machine may have started the same deployment before."""
        if name not in self._logs:
            base = self._store.dir / layout.SERVERS
            shown = f"{name}-{self._machine}".replace("/", "-")
            number = sum(1 for each in base.glob(f"{shown}*")) if base.is_dir() else 0
            self._logs[name] = base / (shown if not number else f"{shown}-{number + 1}")
        return self._logs[name]


def _to_disk(path: Path) -> None:
    with writing(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
