"""Result folders side by side: the same cells paired, what changed, and what got worse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fairshare.analysis.analyze import analyze
from fairshare.analysis.differences import BETTER_IS_HIGHER, Difference, Sample, difference, samples
from fairshare.analysis.model import Analysis, CellAnalysis
from fairshare.analysis.origins import Origin, origins
from fairshare.errors import ResultsError
from fairshare.records import CellKey
from fairshare.results import ResultStore


@dataclass(frozen=True, slots=True)
class Limits:
    """What counts as a regression: beyond doubt, and by more than this part of the first."""

    general: float = 0.05
    by_metric: Mapping[str, float] | None = None

    def of(self, metric: str) -> float:
        """The limit of one metric."""
        return (self.by_metric or {}).get(metric, self.general)


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of one tenant (None: all) in one place of the matrix, in two folders."""

    key: CellKey
    """Of the first repetition: repetitions are brought together."""
    mode_label: str
    tenant: str | None
    metric: str
    folder: int
    """Which folder is held against the first, counted from 1."""
    difference: Difference
    regression: bool
    same_engine: bool = True
    """Engines are not ranked: what differs between two of them is more than how a GPU is shared."""

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or why neither can be said."""
        if not self.same_engine:
            return "another engine"
        if self.difference.interval is None:
            return "no interval"
        if not self.difference.certain:
            return "within noise" if self.difference.change else "the same"
        return "worse" if self.difference.for_the_worse(self.metric) > 0 else "better"


@dataclass(frozen=True, slots=True)
class Unpaired:
    """A cell that some folder lacks the figures of."""

    cell: str
    """Readable: ``two-tenants_mps_c4_r1``."""
    folder: int
    reason: str
    broken: bool = False
    """Whether the first folder has its figures, and this one was asked for them and has none."""


@dataclass(frozen=True, slots=True)
class Folder:
    """One side: where it is, and what its figures may be called."""

    path: Path
    provenance: tuple[str, ...]
    marks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that ``fairshare compare`` says; the first folder is what others are held to."""

    folders: tuple[Folder, ...]
    origins: tuple[Origin, ...]
    """In what the folders differ besides their figures: said first."""
    changes: tuple[Change, ...]
    unpaired: tuple[Unpaired, ...]

    @property
    def regressions(self) -> list[Change]:
        """What got worse beyond doubt and by more than its limit."""
        return [change for change in self.changes if change.regression]

    @property
    def broken(self) -> list[Unpaired]:
        """Cells that worked in the first folder and were asked for in vain in another."""
        return [cell for cell in self.unpaired if cell.broken]


_Keyed = dict[CellKey, CellAnalysis]


def compare(
    folders: Sequence[Path],
    limits: Limits | None = None,
    metrics: Sequence[str] = tuple(BETTER_IS_HIGHER),
) -> Comparison:
    """Hold each folder against the first.

    Cells are the same if their keys are: scenario, mode, policy, concurrency, load, repetition.

    Raises:
        ResultsError: a folder is missing, damaged, or of another format version; not one cell has
            figures in two of them.
    """
    stores = [ResultStore.open(folder) for folder in folders]
    analyses = [analyze(store) for store in stores]
    keyed = [_by_key(analysis) for analysis in analyses]
    measured = [{key: cell for key, cell in side.items() if cell.tenants} for side in keyed]
    engines = [_engine(store) for store in stores]
    changes = [
        change if engines[number] == engines[0] else _unranked(change)
        for number in range(1, len(folders))
        for change in _changes(measured[0], measured[number], number, limits or Limits())
        if change.metric in metrics
    ]
    unpaired = [cell for number in range(len(folders)) for cell in _unpaired(number, keyed, stores)]
    if not changes:
        raise ResultsError(
            f"nothing to compare: no cell has figures both in {folders[0]} and in another folder",
            evidence=[f"{cell.cell}: {cell.reason}" for cell in unpaired[:5]],
            hint="cells are paired by scenario, mode, policy, concurrency, load and repetition",
        )
    common = {key for key in measured[0] if any(key in side for side in measured[1:])}
    return Comparison(
        folders=tuple(
            _folder(folder, [side[key] for key in common if key in side])
            for folder, side in zip(folders, measured, strict=True)
        ),
        origins=tuple(origins(stores, keyed, common)),
        changes=tuple(changes),
        unpaired=tuple(unpaired),
    )


def _folder(path: Path, cells: Sequence[CellAnalysis]) -> Folder:
    provenance = sorted({cell.result.provenance.value for cell in cells})
    marks = sorted({mark.value for cell in cells for mark in cell.marks})
    return Folder(path, tuple(provenance), tuple(marks))


def _engine(store: ResultStore) -> str | None:
    """The name of what served; its version is another explanation, not another engine."""
    engine = (store.matrix.get("provenance") or {}).get("engine")
    return engine.get("name") if isinstance(engine, Mapping) else None


def _unranked(change: Change) -> Change:
    return replace(change, regression=False, same_engine=False)


def _by_key(analysis: Analysis) -> _Keyed:
    """The cells by key; of several of the same key, one that was measured."""
    found: _Keyed = {}
    for cell in analysis.cells:
        if cell.result.key not in found or not found[cell.result.key].tenants:
            found[cell.result.key] = cell
    return found


def _changes(first: _Keyed, second: _Keyed, number: int, limits: Limits) -> Iterator[Change]:
    labels = {replace(key, repetition=1): cell.result.mode_label for key, cell in first.items()}
    before, after = _gathered(first), _gathered(second)
    for (key, tenant, metric), runs in before.items():
        found = difference(runs, after.get((key, tenant, metric), {}))
        if found is not None:
            worse = found.certain and found.for_the_worse(metric) > limits.of(metric)
            yield Change(key, labels[key], tenant, metric, number, found, worse)


def _gathered(side: _Keyed) -> dict[tuple[CellKey, str | None, str], dict[int, Sample]]:
    """The figures by place in the matrix, tenant and metric, then by repetition."""
    found: dict[tuple[CellKey, str | None, str], dict[int, Sample]] = {}
    for key, cell in side.items():
        for (tenant, metric), sample in samples(cell).items():
            place = (replace(key, repetition=1), tenant, metric)
            found.setdefault(place, {})[key.repetition] = sample
    return found


def _unpaired(
    number: int, keyed: Sequence[_Keyed], stores: Sequence[ResultStore]
) -> list[Unpaired]:
    """Cells that some other folder has figures of and this one lacks, and why it does."""
    mine, first = keyed[number], keyed[0]
    wanted = dict.fromkeys(key for side in keyed for key, cell in side.items() if cell.tenants)
    killed = stores[number].killed()
    found = []
    for key in wanted:
        cell = mine.get(key)
        if cell is None:
            broken = any(name.startswith(f"{key.slug}-") for name in killed)
            reason = "killed while it was measured" if broken else "not run"
        elif not cell.tenants:
            said = (cell.result.reason or "no reason given").splitlines()[0]
            reason, broken = f"{cell.result.status.value}: {said}", True
        else:
            continue
        worked = number > 0 and key in first and bool(first[key].tenants)
        found.append(Unpaired(key.slug, number, reason, broken and worked))
    return found
