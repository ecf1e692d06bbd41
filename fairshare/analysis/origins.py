"""In what result folders differ besides their figures: machine, driver, engine, model, settings."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fairshare.analysis.frames import telemetry_frame
from fairshare.analysis.model import CellAnalysis
from fairshare.errors import Location, ResultsError
from fairshare.records import CellKey
from fairshare.results import ResultStore, layout
from fairshare.results.files import read_bytes

ABSENT = "–"
_FIRST = ("device", "engine", "launcher", "machine", "fairshare", "python", "packages")
# Of a cell's settings: who it is, and what is said elsewhere or twice.
_NOT_SETTINGS = frozenset({"key", "device", "all_tenants", "format_version", "engine_version"})
_CLOCKS = {"sm_clock_mhz": "SM clock", "memory_clock_mhz": "memory clock"}
_CLOCK_TOLERANCE = 0.01
_MOST_SETTINGS = 10_000  # aliases written out: a few lines of them can stand for billions
_DEEPEST = 20
_LONGEST = 60
_MOST_VALUES = 3


@dataclass(frozen=True, slots=True)
class Origin:
    """Something in which the folders differ: what it is, and what it is in each of them."""

    what: str
    values: tuple[str, ...]


Keyed = Mapping[CellKey, CellAnalysis]


def origins(
    stores: Sequence[ResultStore], keyed: Sequence[Keyed], common: Collection[CellKey]
) -> list[Origin]:
    """Driver, engine, machine and versions first, then clocks, kinds of figures, and settings.

    ``common`` are the cells that are compared: settings and clocks of others do not matter.

    Raises:
        ResultsError: a damaged file.
    """
    folders = [_folders(store) for store in stores]
    ids = [{key: side[key].result.id for key in common if key in side} for side in keyed]
    paths = [
        {key: where[name] for key, name in side.items() if name in where}
        for side, where in zip(ids, folders, strict=True)
    ]
    return [
        *_provenance(stores),
        *_clocks(paths, keyed),
        *_kinds(keyed, common),
        *_settings(paths),
    ]


def _folders(store: ResultStore) -> dict[str, Path]:
    return {cell.result.id: cell.dir for cell in store.cells()}


def _provenance(stores: Sequence[ResultStore]) -> Iterator[Origin]:
    flat = [_flat(store.matrix.get("provenance") or {}) for store in stores]
    names = dict.fromkeys(name for side in flat for name in side)
    order = {name: place for place, name in enumerate(_FIRST)}
    for name in sorted(names, key=lambda name: order.get(name.split(".")[0], len(order))):
        yield from _differing(name, [side.get(name, ABSENT) for side in flat])


def _clocks(paths: Sequence[Mapping[CellKey, Path]], keyed: Sequence[Keyed]) -> Iterator[Origin]:
    """Median clocks of the GPU in the measured windows, where they differ by more than 1 %."""
    samples = [_clock_samples(side, cells) for side, cells in zip(paths, keyed, strict=True)]
    for column, what in _CLOCKS.items():
        found = [side.get(column) for side in samples]
        known = [clock for clock in found if clock is not None]
        if known and (len(known) < len(found) or max(known) > (1 + _CLOCK_TOLERANCE) * min(known)):
            values = [ABSENT if clock is None else f"{clock:,.0f} MHz" for clock in found]
            yield Origin(f"{what}, median", tuple(values))


def _clock_samples(paths: Mapping[CellKey, Path], cells: Keyed) -> dict[str, float]:
    clocks: dict[str, list[float]] = {}
    for key, path in paths.items():
        frame, window = telemetry_frame(path / layout.GPU), cells[key].result.window_ns
        if frame is None or window is None:
            continue
        inside = frame[frame["t_s"].between(window[0] / 1e9, window[1] / 1e9)]
        for column in _CLOCKS:
            if column in inside and len(seen := inside[column].dropna()):
                clocks.setdefault(column, []).append(float(seen.median()))
    return {column: statistics.median(values) for column, values in clocks.items()}


def _kinds(keyed: Sequence[Keyed], common: Collection[CellKey]) -> Iterator[Origin]:
    """What the figures may be called: where they come from, and with what reservations."""
    sides = [[side[key] for key in common if key in side] for side in keyed]
    yield from _differing("figures", [_set(c.result.provenance for c in cells) for cells in sides])
    yield from _differing("modes", [_set(cell.result.label for cell in cells) for cells in sides])
    yield from _differing("marks", [_set(m for c in cells for m in c.marks) for cells in sides])


def _settings(paths: Sequence[Mapping[CellKey, Path]]) -> Iterator[Origin]:
    """Settings of which the same cells of two folders have different values."""
    found: dict[str, list[dict[str, None]]] = {}
    for key, first in paths[0].items():
        before = _config(first)
        for number, side in enumerate(paths[1:], start=1):
            if key not in side or (after := _config(side[key])) == before:
                continue
            old, new = _read(before, first), _read(after, side[key])
            for name in dict.fromkeys([*old, *new]):
                if old.get(name) != new.get(name):
                    values = found.setdefault(name, [{} for _ in paths])
                    values[0][old.get(name, ABSENT)] = None
                    values[number][new.get(name, ABSENT)] = None
    for name, values in found.items():
        yield Origin(f"settings: {name}", tuple(_several(side or values[0]) for side in values))


def _config(folder: Path) -> bytes:
    path = folder / layout.CONFIG
    return read_bytes(path) if path.exists() else b"{}"


def _read(text: bytes, folder: Path) -> dict[str, str]:
    """The settings of a cell by dotted names."""
    where = Location(folder / layout.CONFIG)
    try:
        loaded = yaml.load(text, yaml.CSafeLoader)
        flat = _flat(loaded)
    except (yaml.YAMLError, ValueError) as error:
        raise ResultsError(f"damaged: {error}", where=where) from error
    if not isinstance(loaded, dict):
        raise ResultsError("damaged: not a mapping", where=where)
    return {name: flat[name] for name in flat if name.split(".")[0] not in _NOT_SETTINGS}


def _flat(value: Any, prefix: str = "", depth: int = 0) -> dict[str, str]:
    """Nested values by dotted names; elements of a list by their name, where they have one.

    Raises:
        ValueError: there are more values than anybody sets.
    """
    if (
        isinstance(value, list)
        and value
        and all(isinstance(v, dict) and "name" in v for v in value)
    ):
        value = {str(each["name"]): each for each in value}
    if not isinstance(value, dict):
        return {prefix: ABSENT if value is None else str(value)[:_LONGEST]}
    found: dict[str, str] = {}
    for name, inner in value.items():
        found |= _flat(inner, f"{prefix}.{name}" if prefix else str(name), depth + 1)
        if len(found) > _MOST_SETTINGS or depth > _DEEPEST:
            raise ValueError("more values than a cell has settings")
    return found


def _differing(what: str, values: Sequence[str]) -> Iterator[Origin]:
    if len(set(values)) > 1:
        yield Origin(what, tuple(values))


def _set(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values))) or ABSENT


def _several(values: Collection[str]) -> str:
    shown = list(values)[:_MOST_VALUES]
    more = len(values) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
