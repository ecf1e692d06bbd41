"""A result folder in the formats of other tools: Parquet, CSV, vLLM's benchmark."""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable, Iterator
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from fairshare.analysis.analyze import analyze
from fairshare.analysis.export_vllm import vllm_files
from fairshare.analysis.summary import plain_text, summary_csv, summary_lines
from fairshare.errors import ResultsError
from fairshare.records import CellResult, CellStatus, RequestRecord
from fairshare.results import ResultStore, StoredCell, layout
from fairshare.results.files import write_atomic, writing

FOLDER = "export"
_WHO = (
    "cell", "scenario", "mode", "label", "policy", "scheduling", "concurrency", "load_scale",
    "repetition", "provenance", "marks",
)  # fmt: skip
_LISTS = ("chunk_ns", "chunk_tokens")
_FIELDS = tuple(field.name for field in fields(RequestRecord))


class ExportFormat(StrEnum):
    """What can be written."""

    PARQUET = "parquet"
    CSV = "csv"
    VLLM_BENCH = "vllm-bench"


def export(directory: Path, form: ExportFormat, target: Path | None = None) -> list[Path]:
    """Write the requests and the figures of a result folder into ``target``; returns the files.

    Without ``target`` they go into ``analysis/export`` of the folder. ``requests.*`` has a line
    per request, with the columns of ``requests.jsonl`` behind those that say which cell it is of;
    ``cells.*`` is ``summary.csv``. CSV has how many ``chunks`` there were in place of their times.

    Raises:
        ResultsError: the folder is missing or damaged, ``target`` cannot be written, or the
            library for Parquet is not installed.
    """
    store = ResultStore.open(directory)
    folder = target or directory / layout.ANALYSIS / FOLDER
    write = _WRITERS[form]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return write(store, folder)


def _write_csv(store: ResultStore, folder: Path) -> list[Path]:
    names = [name for name in _FIELDS if name not in _LISTS]
    requests, cells = folder / "requests.csv", folder / "cells.csv"
    with requests.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_WHO, *names, "chunks"])
        for stored in store.cells():
            place = [plain_text(value) for value in _identity(stored.result)]
            for record in stored.records():
                values = [plain_text(getattr(record, name)) for name in names]
                writer.writerow([*place, *values, len(record.chunk_ns)])
    write_atomic(cells, summary_csv(analyze(store)))
    return [requests, cells]


def _identity(result: CellResult) -> list[Any]:
    """Which cell a request is of, and what its figures may be called: values of ``_WHO``."""
    key, place = result.key, result.key.scheduling
    return [
        result.id, key.scenario, key.mode.value, result.label, key.policy,
        None if place is None else place.value, key.concurrency, key.load_scale, key.repetition,
        result.provenance.value, "; ".join(result.marks),
    ]  # fmt: skip


def _write_parquet(store: ResultStore, folder: Path) -> list[Path]:
    """One row group per cell, so that a folder larger than memory can be written and read."""
    arrow, parquet = _arrow()
    requests, cells = folder / "requests.parquet", folder / "cells.parquet"
    schema = _schema(arrow)
    with parquet.ParquetWriter(requests, schema, compression="zstd") as writer:
        for stored in store.cells():
            columns = _record_columns(stored)
            if columns["cell"]:
                writer.write_table(arrow.table(columns, schema=schema))
    lines = summary_lines(analyze(store))
    names = dict.fromkeys(name for line in lines for name in line)
    table = {name: [line.get(name) for line in lines] for name in names}
    parquet.write_table(arrow.table(table), cells, compression="zstd")
    return [requests, cells]


def _arrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ResultsError(
            f"Parquet needs the library pyarrow, which is not installed ({error})",
            hint="pip install 'fairshare[parquet]', or take --format csv",
        ) from error


def _record_columns(stored: StoredCell) -> dict[str, list[Any]]:
    who = dict(zip(_WHO, _identity(stored.result), strict=True))
    columns: dict[str, list[Any]] = {name: [] for name in _FIELDS}
    for record in stored.records():
        for name, column in columns.items():
            column.append(getattr(record, name))
    count = len(columns["id"])
    return {name: [value] * count for name, value in who.items()} | columns


def _schema(arrow: Any) -> Any:
    """Fixed types, so that a column without any value in one cell is the same in all."""
    text, whole, real = arrow.string(), arrow.int64(), arrow.float64()
    words = arrow.dictionary(arrow.int32(), text)
    who = dict.fromkeys(_WHO, words) | {
        "concurrency": whole, "load_scale": real, "repetition": whole,
    }  # fmt: skip
    kinds = dict.fromkeys(_FIELDS, whole) | {
        "id": text, "tenant": words, "server": words, "phase": words, "finish_reason": words,
        "error": words, "error_text": text, "app": words, "interaction": text,
        "retry_after_s": real, **dict.fromkeys(_LISTS, arrow.list_(whole)),
    }  # fmt: skip
    return arrow.schema(list((who | kinds).items()))


def _write_vllm(store: ResultStore, folder: Path) -> list[Path]:
    return [path for stored in _measured(store) for path in _vllm_of(stored, folder)]


def _vllm_of(stored: StoredCell, folder: Path) -> Iterator[Path]:
    for name, content in vllm_files(stored):
        write_atomic(folder / name, content)
        yield folder / name


def _measured(store: ResultStore) -> list[StoredCell]:
    return [cell for cell in store.cells() if cell.result.status is CellStatus.OK]


_WRITERS: dict[ExportFormat, Callable[[ResultStore, Path], list[Path]]] = {
    ExportFormat.PARQUET: _write_parquet,
    ExportFormat.CSV: _write_csv,
    ExportFormat.VLLM_BENCH: _write_vllm,
}
