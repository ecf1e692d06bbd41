"""A result folder: created once, added to cell by cell, read by everything that analyses."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, Self

import orjson

from fairshare.errors import Location, ResultsError
from fairshare.records import FORMAT_VERSION, CellResult, RequestRecord
from fairshare.results import layout
from fairshare.results.files import ends_at_a_line, read_bytes, write_atomic, writing
from fairshare.results.packed import stored
from fairshare.results.reading import Columns, read_columns, read_records
from fairshare.results.writer import CellWriter

# What readers of matrix.json rely on; the rest of it is shown and not worked with.
_SHAPE: dict[str, type[list[Any]] | type[dict[str, Any]]] = {
    "starts": list,
    "plan": list,
    "scenarios": dict,
    "request": dict,
    "infeasible": dict,
}
_MEND_MATRIX = "put a copy of the file back, or begin anew in another --output-dir"
_MEND_CELL = "the sweep's command with --resume puts the cell aside and measures it anew"
_KIND_NAMES = {list: "a list", dict: "an object"}
_OURS_BEFORE_THE_MATRIX = {layout.EVENTS}  # the event log may be opened first


@dataclass(frozen=True, slots=True)
class StoredCell:
    """A cell on disk. ``complete`` is false for a ``.partial`` folder."""

    dir: Path
    result: CellResult
    complete: bool = True

    def records(self) -> Iterator[RequestRecord]:
        """The requests of the cell in the order in which they ended.

        A last line cut short is passed over in a ``.partial`` folder.

        Raises:
            ResultsError: a damaged line, with file and line; a complete cell without the file.
        """
        return read_records(self._requests(), complete=self.complete)

    def columns(self) -> Iterator[Columns]:
        """The same requests by field, many at a time. Raises as :meth:`records`."""
        return read_columns(self._requests(), complete=self.complete)

    def check_files(self) -> None:
        """See that what defines a complete cell and what it recorded are there, to the last line.

        Raises:
            ResultsError: a file is missing, or ends in the middle of a record.
        """
        config, requests = self.dir / layout.CONFIG, self._requests()
        if not config.is_file():
            raise ResultsError("damaged: the file is missing", where=Location(config))
        if requests.exists() and not ends_at_a_line(requests):  # else it is packed
            raise ResultsError("damaged: the last record is cut short", where=Location(requests))

    def _requests(self) -> Path:
        path = self.dir / layout.REQUESTS
        if self.complete and stored(path) is None:  # written empty, if need be, by every cell
            raise ResultsError(
                "damaged: the file is missing", where=Location(path), hint=_MEND_CELL
            )
        return path


class ResultStore:
    """The folder of one matrix run."""

    def __init__(self, directory: Path, matrix: dict[str, Any]) -> None:
        self.dir = directory
        self.matrix = matrix
        self.cells_dir = directory / layout.CELLS

    @classmethod
    def create(cls, directory: Path, matrix: dict[str, Any]) -> Self:
        """Start a result folder with ``matrix.json``.

        Raises:
            ResultsError: the folder holds something already, or cannot be written.
        """
        with writing(directory):
            taken = (directory / layout.MATRIX).exists()
        if taken:
            raise ResultsError(
                f"{directory} holds the results of an earlier run",
                hint="choose another --output-dir, or continue the run with --resume",
            )
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
            foreign = {path.name for path in directory.iterdir()} - _OURS_BEFORE_THE_MATRIX
        if foreign:
            raise ResultsError(
                f"{directory} holds files that are not results ({min(foreign)!r}, ...)",
                hint="choose a new or empty --output-dir",
            )
        store = cls(directory, {})
        with writing(store.cells_dir):
            store.cells_dir.mkdir()
        store.save_matrix(matrix)
        return store

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open a result folder that exists.

        Raises:
            ResultsError: it is missing, no result folder, damaged, or of another format version.
        """
        if not directory.is_dir():
            raise ResultsError(
                f"result folder {directory} does not exist",
                hint="give the folder that `fairshare matrix` printed",
            )
        path = directory / layout.MATRIX
        if not path.is_file():
            raise ResultsError(
                f"{directory} is not a result folder: it has no {layout.MATRIX}",
                hint="give the folder that `fairshare matrix` printed",
            )
        matrix = _read_object(path, hint=_MEND_MATRIX)
        if matrix.get("format_version") != FORMAT_VERSION:
            raise ResultsError(
                f"format version {matrix.get('format_version')!r}; "
                f"this program reads {FORMAT_VERSION}",
                where=Location(path),
                hint="read it with the version of fairshare that wrote it",
            )
        for name, kind in _SHAPE.items():
            if not isinstance(matrix.get(name, kind()), kind):
                raise ResultsError(
                    f"damaged: {name} is not {_KIND_NAMES[kind]}",
                    where=Location(path),
                    hint=_MEND_MATRIX,
                )
        return cls(directory, matrix)

    def save_matrix(self, matrix: dict[str, Any]) -> None:
        """Replace ``matrix.json`` atomically; the format version is added."""
        self.matrix = {"format_version": FORMAT_VERSION, **matrix}
        data = orjson.dumps(
            self.matrix, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        )
        write_atomic(self.dir / layout.MATRIX, data)

    def begin_cell(self, cell_id: str) -> CellWriter:
        """Start a cell; what a killed run left of it is removed."""
        return CellWriter(self.recovered(cell_id))

    def recovered(self, cell_id: str) -> Path:
        """The folder of a complete cell, after a replacement that was cut off has been settled."""
        final_dir = self.cells_dir / layout.cell_folder(cell_id)
        self._recover(final_dir)
        return final_dir

    def cells(self) -> list[StoredCell]:
        """All cells that have a ``cell.json``, by folder name.

        Of a cell that was given up and later completed, the complete one counts.

        Raises:
            ResultsError: a damaged ``cell.json``.
        """
        return [
            StoredCell(folder, _read_result(folder / layout.CELL), _is_complete(folder))
            for folder in self._folders()
            if (folder / layout.CELL).is_file()
        ]

    def examined(self) -> tuple[list[StoredCell], dict[Path, str]]:
        """The cells as :meth:`cells` has them, and apart those that are complete only by name.

        Of these, what is wrong: a file is missing, ``cell.json`` is damaged, or the last record is
        cut short. Records before the last are left to those who analyse: there may be millions.
        """
        sound: list[StoredCell] = []
        damaged: dict[Path, str] = {}
        for folder in self._folders():
            complete = _is_complete(folder)
            try:
                cell = StoredCell(folder, _read_result(folder / layout.CELL), complete)
                if complete:
                    cell.check_files()
                sound.append(cell)
            except ResultsError as error:
                if complete:
                    name = error.where.path.name if error.where else folder.name
                    damaged[folder] = f"{name}: {error.message}"
        return sound, damaged

    def killed(self) -> list[str]:
        """Names of cells that a killed run left without any ``cell.json``."""
        return [
            folder.name.removesuffix(layout.PARTIAL)
            for folder in self._folders()
            if not (folder / layout.CELL).is_file()
        ]

    def unfinished(self) -> list[Path]:
        """Folders of cells that a run began and did not complete."""
        if not self.cells_dir.is_dir():
            return []
        return sorted(self.cells_dir.glob(f"*{layout.PARTIAL}"))

    def supersede(self, folder: Path) -> Path:
        """Put a cell's folder aside, out of what counts; returns where it is now.

        Raises:
            ResultsError: the folder cannot be moved.
        """
        aside = self.dir / layout.SUPERSEDED
        with writing(aside):
            aside.mkdir(exist_ok=True)
            numbered = (f"{folder.name}-{number}" for number in count(2))
            places = (aside / name for name in chain([folder.name], numbered))
            place = next(each for each in places if not each.exists())
            folder.rename(place)
        return place

    def _folders(self) -> list[Path]:
        """One folder per cell; reading never changes anything, another run may be writing."""
        if not self.cells_dir.is_dir():
            return []
        best: dict[str, Path] = {}
        # A complete cell sorts before its .partial, and that before its .replaced.
        for folder in sorted(path for path in self.cells_dir.iterdir() if path.is_dir()):
            name = _final_name(folder.name)
            whole = folder.name.endswith(layout.REPLACED)
            if name not in best or (whole and best[name].name != name):
                best[name] = folder
        return [best[name] for name in sorted(best)]

    @staticmethod
    def _recover(final_dir: Path) -> None:
        """Undo or complete a replacement that was cut off between its two renames."""
        replaced = final_dir.with_name(final_dir.name + layout.REPLACED)
        if not replaced.is_dir():
            return
        with writing(final_dir):
            if final_dir.exists():
                shutil.rmtree(replaced)
            else:
                replaced.rename(final_dir)


def _final_name(name: str) -> str:
    return name.removesuffix(layout.PARTIAL).removesuffix(layout.REPLACED)


def _is_complete(folder: Path) -> bool:
    return not folder.name.endswith(layout.PARTIAL)


def _read_object(path: Path, *, hint: str) -> dict[str, Any]:
    try:
        loaded = orjson.loads(read_bytes(path))
    except orjson.JSONDecodeError as error:
        raise ResultsError(f"damaged: {error}", where=Location(path), hint=hint) from error
    if not isinstance(loaded, dict):
        raise ResultsError("damaged: not a JSON object", where=Location(path), hint=hint)
    return loaded


def _read_result(path: Path) -> CellResult:
    raw = _read_object(path, hint=_MEND_CELL)
    try:
        result = CellResult.from_mapping(raw)
        _check_values(result)
    except (ValueError, TypeError, KeyError) as error:
        raise ResultsError(f"damaged: {error}", where=Location(path), hint=_MEND_CELL) from error
    return result


def _check_values(result: CellResult) -> None:
    """Types of what analysis computes with.

    Raises:
        TypeError: a value of another type.
    """
    window = result.window_ns
    if window is not None and not (
        isinstance(window, list | tuple) and [type(ns) for ns in window] == [int, int]
    ):
        raise TypeError("window_ns is not two whole numbers")
    if result.end_ns is not None and type(result.end_ns) is not int:
        raise TypeError("end_ns is not a whole number")
    for tenant in result.tenants:
        if not isinstance(tenant["name"], str):
            raise TypeError("the name of a tenant is not text")
        if not _is_number(tenant.get("weight", 1)):
            raise TypeError("the weight of a tenant is not a number")
        slo = tenant.get("slo", {})
        if not isinstance(slo, dict) or not all(_is_number(limit) for limit in slo.values()):
            raise TypeError("the slo of a tenant does not hold numbers")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
