"""The answer in sentences: which mode for which goal, and where the evidence does not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairshare.analysis.aggregate import HIGHER_IS_BETTER, Row, Setting, settings
from fairshare.analysis.table import COLUMNS, Column, visible
from fairshare.records import Mode

_GOALS = (
    ("output_tokens_per_s", None, "Most output tokens per second"),
    ("e2e_p99_s", "each", "Shortest tail (E2E P99)"),
    ("slo_attainment", "each", "Most requests within their limits"),
    ("jain", None, "Most equal service (Jain)"),
)
_MOST_TENANTS = 6
_BY_METRIC: dict[str, Column] = {column.metric: column for column in COLUMNS}


@dataclass(frozen=True, slots=True)
class Finding:
    """One goal, the mode that serves it best, and whether that is beyond doubt."""

    goal: str
    mode: str
    value: str
    certain: bool
    one_run: bool = False
    """Whether a single run is all there is to tell from."""


def findings(rows: Sequence[Row]) -> list[tuple[Setting, list[Finding]]]:
    """Per setting, one finding per goal that at least two modes compete for."""
    found = [(setting, _of_setting(setting, rows)) for setting in settings(rows)]
    return [(setting, some) for setting, some in found if some]


def _of_setting(setting: Setting, rows: Sequence[Row]) -> list[Finding]:
    rivals = [row for row in rows if row.setting == setting and row.mode is not Mode.EXCLUSIVE]
    tenants = [name for name in dict.fromkeys(row.tenant for row in rivals) if name is not None]
    made: list[Finding | None] = []
    for metric, each, goal in _GOALS:
        if each is None:
            made.append(_finding([r for r in rivals if r.tenant is None], metric, goal))
            continue
        for tenant in tenants[:_MOST_TENANTS]:
            own = [row for row in rivals if row.tenant == tenant]
            made.append(_finding(own, metric, f"{goal} for {visible(tenant)}"))
    return [finding for finding in made if finding is not None]


def _finding(rows: list[Row], metric: str, goal: str) -> Finding | None:
    measured = [(value, row) for row in rows if (value := row.value(metric)) is not None]
    if len(measured) < 2:
        return None
    pick = max if HIGHER_IS_BETTER[metric] else min
    value, best = pick(measured, key=lambda pair: pair[0])
    if all(other == value for other, _ in measured):
        return Finding(goal, "all modes alike", _BY_METRIC[metric].form(value), certain=True)
    return Finding(
        goal,
        best.mode_label,
        _BY_METRIC[metric].form(value),
        metric in best.best,
        best.repetitions == 1,
    )
