"""The answer as text: which mode serves whom how well. For the terminal and for the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fairshare.analysis.aggregate import Estimate, Row, settings
from fairshare.analysis.stats import ENOUGH_FOR_P99
from fairshare.records import Mode, Provenance

TOTAL = "all"
BEST = "*"
FEW = "†"
ABSENT = "–"


@dataclass(frozen=True, slots=True)
class Column:
    """A metric as people read it."""

    title: str
    metric: str
    form: Callable[[float], str]
    meaning: str


@dataclass(frozen=True, slots=True)
class TableCell:
    """One figure: its text, its interval's text, and what must be said with it."""

    text: str
    interval: str = ""
    best: bool = False
    few: bool = False

    def __str__(self) -> str:
        return f"{self.text}{FEW if self.few else ''}{BEST if self.best else ''}"


@dataclass(frozen=True, slots=True)
class TableRow:
    """One tenant under one mode; ``tenant`` is ``all`` for the total."""

    mode: str
    tenant: str
    total: bool
    baseline: bool
    figures: tuple[TableCell, ...]
    provenance: str
    marks: tuple[str, ...]
    notes: tuple[str, ...]
    repetitions: int
    errors: str


@dataclass(frozen=True, slots=True)
class Table:
    """All modes in one setting."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]


def visible(text: str) -> str:
    """``text`` with what would steer a terminal or the direction of writing made visible."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def format_seconds(value: float) -> str:
    """``0.0501`` as ``50.1 ms``: three digits that count."""
    if value < 0:
        return f"-{format_seconds(-value)}"
    if value < 0.9995e-3:
        return f"{_digits(value * 1e6)} µs"
    if value < 0.9995:
        return f"{_digits(value * 1e3)} ms"
    return f"{_digits(value)} s"


def format_number(value: float) -> str:
    """Three digits that count, thousands apart."""
    return _digits(value)


def format_count(value: float) -> str:
    """A whole number in full; the mean of several with three digits that count."""
    return f"{value:,.0f}" if value.is_integer() else _digits(value)


def format_percent(value: float) -> str:
    """``0.987`` as ``98.7 %``; 100 % only where it is."""
    text = f"{value * 100:.1f}"
    if text == "100.0":
        return "100 %" if value >= 1 else "99.9 %"
    return "0 %" if value == 0 else f"{text} %"


def format_ratio(value: float) -> str:
    """``2.04`` as ``2.04x``."""
    return f"{_digits(value)}x"


def format_index(value: float) -> str:
    """A fairness index with three decimals."""
    return f"{value:.3f}"


def format_exact_index(value: float) -> str:
    """A fairness index with four decimals, as papers print them."""
    return f"{value:.4f}"


def format_exact(value: float) -> str:
    """Two decimals, as papers print them."""
    return f"{value:.2f}"


COLUMNS = (
    Column("output tok/s", "output_tokens_per_s", format_number, "output tokens per second"),
    Column("req/s", "requests_per_s", format_number, "requests completed per second"),
    Column("TTFT P50", "ttft_p50_s", format_seconds, "time to first token, median"),
    Column("TTFT P99", "ttft_p99_s", format_seconds, "time to first token, 99th percentile"),
    Column("TPOT P50", "tpot_p50_s", format_seconds, "time per output token, median"),
    Column("E2E P50", "e2e_p50_s", format_seconds, "whole request, median"),
    Column("E2E P99", "e2e_p99_s", format_seconds, "whole request, 99th percentile"),
    Column("SLO met", "slo_attainment", format_percent, "requests within all limits / all sent"),
    Column("completed", "completion_rate", format_percent, "requests answered / all sent"),
    Column("Jain", "jain", format_index, "fairness among backlogged tenants, 1 is equal"),
    Column("vs alone", "slowdown_e2e_p99", format_ratio, "E2E P99 over that of the tenant alone"),
)
_OPTIONAL = ("slo_attainment", "jain", "slowdown_e2e_p99", "jain_even", "service_bound")
POLICY_COLUMNS = (
    Column("tok/s", "total_tokens_per_s", format_number, "prompt and output tokens per second"),
    Column("run tok/s", "run_tokens_per_s", format_number, "of answered requests, whole run"),
    Column("completion", "completion_rate", format_percent, "requests answered / all sent"),
    Column("worst P99", "worst_ttft_p99_s", format_seconds, "TTFT P99 of who waited longest"),
    Column("Jain", "jain", format_exact_index, "of backlogged tenants, mean over windows"),
    Column("Jain even", "jain_even", format_exact_index, "all windows together, VTC's crediting"),
    Column("max diff", "max_service_difference", format_number, "of service, both backlogged"),
    Column("queued", "queued_service_difference", format_number, "the same, both with a queue"),
    Column("2U", "service_bound", format_number, "VTC's bound on the difference of queued tenants"),
    Column("D max", "d_max", format_exact, "largest D(t), VTC's service difference"),
    Column("D mean", "d_mean", format_exact, "mean of D(t)"),
    Column("D var", "d_variance", format_exact, "variance of D(t)"),
    Column("throttled", "throttled", format_count, "requests that were refused"),
    Column("wasted", "wasted_work_share", format_percent, "tokens for what was not completed"),
)
INTERACTION_COLUMNS = (
    Column("begun", "interactions", format_count, "first call meant for the window"),
    Column("whole", "interactions_completed", format_count, "every call answered"),
    Column("failed", "interactions_failed", format_count, "a call failed"),
    Column("half-way", "interactions_broken", format_count, "of the failed: not at the first call"),
    Column("cut", "interactions_cut", format_count, "neither: the window or the drain ended"),
    Column("completion", "interaction_completion_rate", format_percent, "whole / (whole + failed)"),
    Column("E2E P50", "interaction_e2e_p50_s", format_seconds, "whole interaction, median"),
    Column(
        "E2E P99", "interaction_e2e_p99_s", format_seconds, "whole interaction, 99th percentile"
    ),
    Column("pauses", "interaction_think_mean_s", format_seconds, "think times of one, mean"),
    Column("calls", "interaction_calls_mean", format_count, "calls of an interaction, mean"),
    Column("wasted tok", "wasted_tokens", format_count, "prompt and output, of failed ones"),
    Column("wasted", "wasted_share", format_percent, "of the tokens of whole and failed ones"),
)


def policy_tables(rows: Sequence[Row]) -> list[Table]:
    """One table per setting in which policies compete: fairness beside what it costs.

    Also where somebody else's results are, whose published figures these are.
    """
    return [
        _table(f"{setting.label}: policies side by side", found, POLICY_COLUMNS)
        for setting in settings(rows)
        if _compete(found := [r for r in rows if r.setting == setting and "d_max" in r.estimates])
    ]


def _compete(rows: Sequence[Row]) -> bool:
    policies = {(row.policy, row.scheduling) for row in rows}
    return len(policies) > 1 or any(row.provenance is Provenance.IMPORTED for row in rows)


def tables(rows: Sequence[Row]) -> list[Table]:
    """One table per setting; optional columns that nobody has a value in are left out."""
    return [
        _table(setting.label, [row for row in rows if row.setting == setting], COLUMNS)
        for setting in settings(rows)
    ]


def interaction_tables(rows: Sequence[Row]) -> list[Table]:
    """One table per setting in which there are interactions.

    Where a tenant's are of several applications, each has a line among those of all tenants.
    """
    chained = [row for row in rows if "interactions" in row.estimates]
    return [
        Table(
            f"{visible(setting.label)}: interactions",
            INTERACTION_COLUMNS,
            tuple(line for row in chained if row.setting == setting for line in _chained(row)),
        )
        for setting in settings(chained)
    ]


def _chained(row: Row) -> list[TableRow]:
    of_apps = row.apps.items() if row.tenant is None else ()
    return [
        *(
            replace(_chained_row(row, found), tenant=f"{TOTAL}: {visible(app)}", total=False)
            for app, found in of_apps
        ),
        _chained_row(row, row.estimates),
    ]


def _chained_row(row: Row, estimates: Mapping[str, Estimate]) -> TableRow:
    few = estimates["interactions_completed"].value < ENOUGH_FOR_P99
    figures = tuple(figure_of(estimates, column, few=few) for column in INTERACTION_COLUMNS)
    return replace(_row(row, ()), figures=figures)


def _table(title: str, rows: Sequence[Row], possible: Sequence[Column]) -> Table:
    columns = tuple(
        column
        for column in possible
        if column.metric not in _OPTIONAL or any(column.metric in row.estimates for row in rows)
    )
    return Table(visible(title), columns, tuple(_row(row, columns) for row in rows))


def _row(row: Row, columns: Sequence[Column]) -> TableRow:
    return TableRow(
        mode=visible(row.mode_label),
        tenant=TOTAL if row.tenant is None else visible(row.tenant),
        total=row.tenant is None,
        baseline=row.mode is Mode.EXCLUSIVE,
        figures=tuple(
            figure_of(row.estimates, column, best=row.best, few=row.few_for_p99)
            for column in columns
        ),
        provenance=row.provenance.value,
        marks=tuple(mark.value for mark in row.marks),
        notes=tuple(visible(note) for note in row.notes),
        repetitions=row.repetitions,
        errors=", ".join(f"{count} {kind}" for kind, count in row.errors.items()),
    )


def figure_of(
    estimates: Mapping[str, Estimate],
    column: Column,
    *,
    best: frozenset[str] = frozenset(),
    few: bool = False,
) -> TableCell:
    """One figure as text, with its interval."""
    estimate = estimates.get(column.metric)
    if estimate is None:
        return TableCell(ABSENT)
    return TableCell(
        text=column.form(estimate.value),
        interval=_interval(estimate, column),
        best=column.metric in best,
        few=few and "p99" in column.metric,
    )


def _interval(estimate: Estimate, column: Column) -> str:
    if estimate.interval is None or column.form is format_count:  # counts say how many there were
        return ""
    low, high = column.form(estimate.interval.low), column.form(estimate.interval.high)
    if low == high:
        return low
    number, _, unit = low.rpartition(" ")
    if number and high.endswith(f" {unit}"):  # the unit once is enough
        low = number
    return f"{low} to {high}"


def _digits(value: float) -> str:
    size = abs(value)
    if size >= 99.95:
        return f"{value:,.0f}"
    if size >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if size else "0"
