"""The figures of one scenario at one load scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from fairshare.analysis.aggregate import Row
from fairshare.analysis.drawing import Panel, draw_curves, draw_panel
from fairshare.analysis.evidence import evidence
from fairshare.analysis.frames import curves_frame
from fairshare.analysis.gallery import Family
from fairshare.analysis.model import Drawn
from fairshare.analysis.policy_plots import by_tenant, policy_figures
from fairshare.analysis.round_plots import round_figures
from fairshare.analysis.style import legend, panels, save, themed, wrapped
from fairshare.analysis.subjects import Subject
from fairshare.analysis.table import TOTAL
from fairshare.analysis.timeline import CPU, GPU, Gauge, draw_timeline
from fairshare.analysis.trade_plots import trade_figures
from fairshare.results.layout import cell_folder

_MOST_CELLS = 6  # columns of the timeline


def draw_families(
    subject: Subject, families: Sequence[Family], folder: Path, *, pdf: bool
) -> dict[str, Drawn]:
    """Draw these figures of a subject into ``folder``; each by its kind.

    Raises:
        ResultsError: damaged telemetry.
    """
    made = {}
    with themed():
        for kind, title, caption, figure in _figures(subject, families):
            name = f"{kind}_{cell_folder(subject.name.replace(' ', '_'))}"
            about = Drawn(
                name=name,
                title=f"{title}: {subject.name}",
                caption=f"{caption} {evidence(kind, subject)}",
                png=folder / f"{name}.png",
                svg=folder / f"{name}.svg",
                pdf=folder / f"{name}.pdf" if pdf else None,
                provenance=tuple(dict.fromkeys(row.provenance.value for row in subject.rows)),
                marks=marked_modes(subject.rows),
            )
            made[kind] = save(figure, about)
    return made


def marked_modes(rows: Sequence[Row]) -> tuple[str, ...]:
    """Each mark once, with the modes that it is about unless these are all."""
    modes: dict[str, dict[str, None]] = {}
    for row in rows:
        for mark in row.marks:
            modes.setdefault(mark.value, {})[row.mode_label] = None
    count = len({row.mode_label for row in rows})
    return tuple(
        mark if len(found) == count else f"{mark} ({', '.join(found)})"
        for mark, found in modes.items()
    )


def _figures(
    subject: Subject, families: Sequence[Family]
) -> Iterator[tuple[str, str, str, Figure]]:
    """File name, title, caption and figure of everything that can be drawn of a subject."""
    for family in families:
        yield from _FAMILIES[family](subject)


def _timeline_figures(
    subject: Subject, kind: str, title: str, gauges: Sequence[Gauge]
) -> Iterator[tuple[str, str, str, Figure]]:
    if (timeline := _timeline(subject, gauges)) is not None:
        caption = "First repetition at the highest concurrency; the measured window is shaded."
        yield kind, title, caption, timeline


def _speed_figures(subject: Subject) -> Iterator[tuple[str, str, str, Figure]]:
    yield (
        "throughput",
        "Throughput",
        "Output tokens per second, of each tenant and of all together. Exclusive is each tenant "
        "alone, in turn, and has no total.",
        _grid(subject, [("output_tokens_per_s", "output tokens/s", 1.0)]),
    )
    yield (
        "tail-latency",
        "Tail latency (P99)",
        "99th percentile of the time to the first token and of the whole request. Of an "
        "open-loop tenant it counts from the schedule, of a closed-loop tenant from the sending.",
        _grid(
            subject,
            [
                _latency_panel(subject, "ttft_p99_s", "P99 TTFT"),
                _latency_panel(subject, "e2e_p99_s", "P99 E2E"),
            ],
        ),
    )
    if subject.tenants:
        yield (
            "latency-ecdf",
            "Latency distribution",
            "Share of the requests that took at most so long, by tenant, at the highest "
            "concurrency; one line per repetition.",
            _curves(subject),
        )


def _sharing_figures(subject: Subject) -> Iterator[tuple[str, str, str, Figure]]:
    if any("jain" in row.estimates for row in subject.rows):
        yield (
            "fairness",
            "Fairness and its price",
            "Jain's index over backlogged tenants (1 is equal service per weight) beside what it "
            "costs: throughput, completed requests and the tail; of policies also the largest "
            "difference of service, what was refused, what was done in vain, and the P99 TTFT of "
            "the tenant that waited longest.",
            _fairness(subject),
        )
    if any("slowdown_e2e_p99" in row.estimates for row in subject.rows):
        yield (
            "slowdown",
            "Slowdown against being alone",
            "P99 when sharing over P99 of the same tenant alone on the whole device.",
            _slowdown(subject),
        )


def _slowdown(subject: Subject) -> Figure:
    metrics = [("slowdown_ttft_p99", "P99 TTFT / alone"), ("slowdown_e2e_p99", "P99 E2E / alone")]
    if not subject.tenants:  # too many for a panel each, and all together have none
        return by_tenant(subject, metrics)
    return _grid(subject, [(*metric, 1.0) for metric in metrics], total=False)


def _latency_panel(subject: Subject, metric: str, name: str) -> tuple[str, str, float]:
    """Seconds, or milliseconds where all values are below one second."""
    values = [value for row in subject.rows if (value := row.value(metric)) is not None]
    return (
        (metric, f"{name} (ms)", 1000.0)
        if max(values, default=0) < 1
        else (metric, f"{name} (s)", 1.0)
    )


def _grid(
    subject: Subject, metrics: Sequence[tuple[str, str, float]], *, total: bool = True
) -> Figure:
    """Metrics down, tenants across."""
    frame, styles = subject.frame, subject.looks
    tenants = [*subject.tenants, *([TOTAL] if total or not subject.tenants else [])]
    figure, grid = wrapped(len(metrics), len(tenants))
    for row, (metric, axis, factor) in zip(grid, metrics, strict=True):
        for axes, tenant in zip(row, tenants, strict=True):
            title = "all tenants" if tenant == TOTAL else tenant
            draw_panel(axes, frame, Panel(metric, tenant, title, axis, factor), styles)
    if frame["concurrency"].nunique() > 1:
        drawn = frame["metric"].isin([name for name, _, _ in metrics])
        shown = set(frame[drawn & frame["tenant"].isin(tenants)]["mode"])
        legend(figure, {mode: look for mode, look in styles.items() if mode in shown})
    return figure


def _curves(subject: Subject) -> Figure:
    frame = curves_frame(subject.busiest)
    tenants = subject.tenants
    figure, grid = wrapped(2, len(tenants))
    for row, metric in zip(grid, ("ttft", "e2e"), strict=True):
        for axes, tenant in zip(row, tenants, strict=True):
            part = frame[(frame["tenant"] == tenant) & (frame["metric"] == metric)]
            draw_curves(axes, part, tenant, f"{metric.upper()} (ms)", subject.looks)
    legend(figure, subject.looks, markers=False)
    return figure


def _fairness(subject: Subject) -> Figure:
    frame = subject.frame
    styles = {
        label: look
        for label, look in subject.looks.items()
        if ((frame["mode"] == label) & (frame["metric"] == "jain")).any()
    }
    metric, axis, factor = _latency_panel(subject, "e2e_p99_s", "P99 E2E")
    shown = [
        Panel("jain", TOTAL, "fairness", "Jain's index", top=1.1),
        Panel("output_tokens_per_s", TOTAL, "throughput", "output tokens/s"),
        Panel("completion_rate", TOTAL, "completion", "completed (%)", 100, top=112),
        Panel(metric, TOTAL, "tail latency", axis, factor),
    ]
    if subject.policies > 1:
        metric, axis, factor = _latency_panel(subject, "worst_ttft_p99_s", "P99 TTFT")
        shown += [
            Panel("max_service_difference", TOTAL, "largest difference", "service per weight"),
            Panel("throttled_rate", TOTAL, "throttled", "requests refused (%)", 100),
            Panel("wasted_work_share", TOTAL, "wasted work", "tokens in vain (%)", 100),
            Panel(metric, TOTAL, "who waits longest", axis, factor),
        ]
    figure, grid = panels(2, len(shown) // 2, width=3.1 if len(shown) > 4 else 3.5)
    for axes, panel in zip([*grid[0], *grid[1]], shown, strict=True):
        draw_panel(axes, frame, panel, styles)
    if frame["concurrency"].nunique() > 1:
        legend(figure, styles)
    return figure


def _timeline(subject: Subject, kinds: Sequence[Gauge]) -> Figure | None:
    chosen = [
        (cell.result.mode_label, cell)
        for cell in subject.busiest
        if cell.result.key.repetition == 1
    ]
    chosen = [
        (f"{label}: {alone}" if (alone := cell.result.key.tenant) else label, cell)
        for label, cell in chosen
    ]
    if len(chosen) > _MOST_CELLS:
        chosen = [(label, cell) for label, cell in chosen if not cell.result.key.tenant]
    return draw_timeline(
        [(label, subject.stored[cell.result.id]) for label, cell in chosen[:_MOST_CELLS]], kinds
    )


_FAMILIES: dict[Family, Callable[[Subject], Iterator[tuple[str, str, str, Figure]]]] = {
    Family.TRADE: trade_figures,
    Family.SPEED: _speed_figures,
    Family.SHARING: _sharing_figures,
    Family.POLICIES: policy_figures,
    Family.ROUNDS: round_figures,
    Family.CPU: partial(_timeline_figures, kind="resources", title="CPU use over time", gauges=CPU),
    Family.GPU: partial(_timeline_figures, kind="gpu", title="GPU use over time", gauges=GPU),
}
