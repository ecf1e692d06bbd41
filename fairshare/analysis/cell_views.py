"""What can be said of one cell: how it was run, by what, and what its servers said last."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fairshare.analysis.aggregate import Estimate, figures_of
from fairshare.analysis.deployment import mapping
from fairshare.analysis.model import CellAnalysis
from fairshare.analysis.table import (
    COLUMNS,
    TOTAL,
    Table,
    TableRow,
    figure_of,
    format_percent,
    visible,
)
from fairshare.results import StoredCell, layout
from fairshare.units import NS_PER_S

_TAIL_BYTES = 4000
_TAIL_LINES = 15
_LONGEST_COMMAND = 20_000
_MOST_FILES = 12


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The end of a log, or a command: where it is written, and the text."""

    place: str
    text: str


@dataclass(frozen=True, slots=True)
class CellView:
    """A cell for people. ``anchor`` is where the page shows it."""

    anchor: str
    cell: CellAnalysis
    facts: tuple[tuple[str, str], ...]
    table: Table | None
    commands: tuple[Excerpt, ...]
    logs: tuple[Excerpt, ...]
    files: tuple[str, ...]


def cell_view(stored: StoredCell, cell: CellAnalysis, anchor: str) -> CellView:
    """Everything about one cell that fits a page."""
    folder = stored.dir.parent.parent
    files = (str(path.relative_to(folder)) for path in stored.dir.iterdir() if path.is_file())
    return CellView(
        anchor=anchor,
        cell=cell,
        facts=tuple((name, text) for name, text in _facts(cell) if text),
        table=_table(cell),
        commands=tuple(_excerpts(stored.dir, folder, "*.cmd", _whole)),
        logs=tuple(_excerpts(stored.dir, folder, "*.log", _tail)),
        files=tuple(sorted(files)),
    )


def _facts(cell: CellAnalysis) -> Iterator[tuple[str, str]]:
    result, key = cell.result, cell.result.key
    yield "scenario", key.scenario
    yield "mode", result.mode_label
    yield "tenant alone", key.tenant or ""
    yield "concurrency", "" if key.concurrency is None else str(key.concurrency)
    yield "load scale", "" if key.load_scale == 1.0 else f"x{key.load_scale:g}"
    yield "repetition", str(key.repetition)
    if result.started_at is not None:
        yield "started", _time(result.started_at)
    if result.window_ns is not None:
        start, end = (ns / NS_PER_S for ns in result.window_ns)
        yield "measured window", f"{start:g} s to {end:g} s"
    yield "deployment", result.deployment
    yield "fingerprint", result.fingerprint
    for share in map(mapping, result.shares):
        yield f"share of {share.get('slot') or share.get('server')}", _share(share)
    client = result.client
    lag = mapping(client.get("loop_lag_ms")).get("p99")
    if isinstance(lag, int | float):
        yield "load generator's lag, P99", f"{lag:.3g} ms"
    if isinstance(used := client.get("cpu_fraction"), int | float):
        yield "load generator's use of a core", format_percent(used)
    yield "client-limited because", _sentences(client.get("reasons"))


def _sentences(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else ""


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return str(seconds)


def _share(share: Mapping[str, Any]) -> str:
    verified = "verified" if share.get("verified") else "not verified"
    by = f" by {share['by']}" if share.get("by") else ""
    planned = mapping(share.get("planned"))
    parts = [f"{name} {value}" for name, value in planned.items() if value is not None]
    return f"{verified}{by}{': ' if parts else ''}{', '.join(parts)}"


def _table(cell: CellAnalysis) -> Table | None:
    """Its figures by tenant; None of a cell without any."""
    if not cell.tenants:
        return None
    rows = []
    for row in cell.rows():
        numbers, within = figures_of(cell, row)
        estimates = {
            name: Estimate(float(value), within.get(name), across_runs=False)
            for name, value in numbers.items()
            if value is not None
        }
        rows.append(
            TableRow(
                mode=visible(cell.result.mode_label),
                tenant=TOTAL if row.tenant is None else visible(row.tenant),
                total=row.tenant is None,
                baseline=False,
                figures=tuple(figure_of(estimates, column) for column in COLUMNS),
                provenance=cell.result.provenance.value,
                marks=tuple(mark.value for mark in cell.marks),
                notes=tuple(visible(note) for note in cell.result.notes),
                repetitions=1,
                errors=", ".join(f"{count} {kind}" for kind, count in row.errors.items()),
            )
        )
    return Table(f"Figures of {visible(cell.result.id)}", COLUMNS, tuple(rows))


def _excerpts(cell: Path, folder: Path, pattern: str, read: Any) -> Iterator[Excerpt]:
    """Of the cell's own files; links are passed over: they may point out of the folder."""
    for path in sorted((cell / layout.SERVERS).glob(pattern))[:_MOST_FILES]:
        if path.is_symlink() or not path.is_file():
            continue
        text = read(path)
        if text:
            yield Excerpt(str(path.relative_to(folder)), text)


def _whole(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_LONGEST_COMMAND).decode("utf-8", "replace").strip()


def _tail(path: Path) -> str:
    """The last lines of a log."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        text = file.read(_TAIL_BYTES).decode("utf-8", "replace")
    return "\n".join(text.strip().splitlines()[-_TAIL_LINES:])
