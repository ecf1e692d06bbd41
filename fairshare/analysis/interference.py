"""Who slows whom: each tenant's latency beside others over its latency alone, by mode.

Definitions: docs/metrics.md. The cells say who the others were: one of them in a pair, all of them
in a scenario of many, nobody where a tenant had a server to itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fairshare.analysis.aggregate import Row, Setting
from fairshare.analysis.slowdown import TAIL
from fairshare.analysis.table import (
    ABSENT,
    Column,
    TableCell,
    figure_of,
    format_index,
    format_ratio,
    visible,
)
from fairshare.records import Mode

_SLOWDOWN = f"slowdown_{TAIL.removesuffix('_s')}"
_TAIL = Column("E2E P99", _SLOWDOWN, format_ratio, "E2E P99 over that alone")
_FIRST = Column("TTFT P99", "slowdown_ttft_p99", format_ratio, "TTFT P99 over that alone")
_INDEX = Column(
    "isolation",
    "isolation_index",
    format_index,
    "E2E P99 alone / sharing, worst interactive tenant",
)
_SEVERITY = (1.1, 1.5, 3.0)  # from where on a slowdown is shown as light, middling, grave
_NAMED = 3  # aggressors that are named; more are counted


@dataclass(frozen=True, slots=True)
class Suffered:
    """What one tenant suffered in one mode."""

    tail: TableCell
    first: TableCell
    severity: int
    """0 (nothing to speak of) to 3, for the eye; the figure itself stands beside it."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A line of the matrix."""

    tenant: str
    aggressors: str
    suffered: tuple[Suffered | None, ...]
    """By mode; None where it was not measured."""


@dataclass(frozen=True, slots=True)
class ModeColumn:
    """A column of the matrix."""

    mode: str
    provenance: str
    marks: tuple[str, ...]
    isolation: TableCell


@dataclass(frozen=True, slots=True)
class InterferenceMatrix:
    """All victims by all modes in one setting."""

    title: str
    modes: tuple[ModeColumn, ...]
    victims: tuple[Victim, ...]
    quicker: tuple[str, ...]
    """Who was quicker beside others than alone, which asks for an explanation."""

    @property
    def indexed(self) -> bool:
        """Whether any mode has an index of isolation."""
        return any(column.isolation.text != ABSENT for column in self.modes)

    def of(self, victim: Victim, mode: str) -> Suffered | None:
        """What a victim of this matrix suffered in a mode; None where that was not measured."""
        modes = [column.mode for column in self.modes]
        return victim.suffered[modes.index(mode)] if mode in modes else None


def interference(rows: Sequence[Row]) -> list[InterferenceMatrix]:
    """One matrix per setting in which tenants shared and were measured alone too."""
    by_setting: dict[Setting, list[Row]] = {}
    for row in rows:
        if row.mode is not Mode.EXCLUSIVE:
            by_setting.setdefault(row.setting, []).append(row)
    found = {
        setting: shared
        for setting, shared in by_setting.items()
        if any(_SLOWDOWN in row.estimates for row in shared)
    }
    return [*(_matrix(setting, shared) for setting, shared in found.items()), *_across(found)]


def _across(found: Mapping[Setting, Sequence[Row]]) -> Iterator[InterferenceMatrix]:
    """Per load, tenants that several scenarios have: alone in their share, in pairs, among all.

    A scenario without a closed loop has one load at every concurrency.
    """
    loads = dict.fromkeys((each.load_scale, each.concurrency) for each in found)
    closed = {scale for scale, concurrency in loads if concurrency is not None}
    for load in loads:
        if load[1] is None and load[0] in closed:
            continue
        alike = {
            setting: rows
            for setting, rows in found.items()
            if setting.load_scale == load[0] and setting.concurrency in (load[1], None)
        }
        matrices = [(setting, _matrix(setting, rows)) for setting, rows in alike.items()]
        names = Counter(victim.tenant for _, matrix in matrices for victim in matrix.victims)
        shared = {name for name, count in names.items() if count > 1}
        if not shared:
            continue
        labels = list(dict.fromkeys(m.mode for _, matrix in matrices for m in matrix.modes))
        columns = {m.mode: m for _, matrix in matrices for m in matrix.modes}
        victims = [
            replace(
                victim,
                aggressors=f"{victim.aggressors} ({visible(setting.scenario)})",
                suffered=tuple(matrix.of(victim, label) for label in labels),
            )
            for setting, matrix in matrices
            for victim in matrix.victims
            if victim.tenant in shared
        ]
        yield InterferenceMatrix(
            title=f"the same tenants in several scenarios, {_load(*load)}",
            modes=tuple(replace(columns[m], isolation=TableCell(ABSENT)) for m in labels),
            victims=tuple(sorted(victims, key=lambda victim: victim.tenant)),
            quicker=(),
        )


def _load(load_scale: float, concurrency: int | None) -> str:
    level = "their own loads" if concurrency is None else f"concurrency {concurrency}"
    return level if load_scale == 1.0 else f"{level}, load x{load_scale:g}"


def _matrix(setting: Setting, shared: Sequence[Row]) -> InterferenceMatrix:
    labels = list(dict.fromkeys(row.mode_label for row in shared))
    tenants = list(dict.fromkeys(row.tenant for row in shared if row.tenant is not None))
    found = {(row.mode_label, row.tenant): row for row in shared}
    return InterferenceMatrix(
        title=visible(setting.label),
        modes=tuple(
            _column(label, [r for r in shared if r.mode_label == label]) for label in labels
        ),
        victims=tuple(
            Victim(
                visible(tenant),
                _aggressors(tenant, tenants),
                tuple(_suffered(found.get((label, tenant))) for label in labels),
            )
            for tenant in tenants
        ),
        quicker=tuple(_quicker(shared)),
    )


def _column(label: str, rows: Sequence[Row]) -> ModeColumn:
    total = next((row for row in rows if row.tenant is None), None)
    return ModeColumn(
        mode=visible(label),
        provenance=rows[0].provenance.value,
        marks=tuple(dict.fromkeys(mark.value for row in rows for mark in row.marks)),
        isolation=figure_of(total.estimates, _INDEX) if total else TableCell(ABSENT),
    )


def _aggressors(victim: str, tenants: Sequence[str]) -> str:
    others = [visible(tenant) for tenant in tenants if tenant != victim]
    if not others:
        return "nobody"
    return ", ".join(others) if len(others) <= _NAMED else f"all {len(others)} others"


def _suffered(row: Row | None) -> Suffered | None:
    if row is None or (factor := row.value(_SLOWDOWN)) is None:
        return None
    few = row.few_for_p99
    return Suffered(
        figure_of(row.estimates, _TAIL, few=few),
        figure_of(row.estimates, _FIRST, few=few),
        sum(factor >= least for least in _SEVERITY),
    )


def _quicker(rows: Sequence[Row]) -> list[str]:
    """Who was faster beside others than alone, by more than its interval allows for."""
    found = []
    for row in rows:
        estimate = row.estimates.get(_SLOWDOWN)
        if estimate is None or estimate.interval is None or estimate.interval.high >= 1:
            continue
        found.append(f"{visible(str(row.tenant))} under {visible(row.mode_label)}")
    return found
