"""``summary.csv`` and ``summary.json``: every figure, ready for other tools."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from fairshare.analysis.aggregate import Estimate, Row
from fairshare.analysis.differences import Between, between_modes
from fairshare.analysis.drift import drifts
from fairshare.analysis.model import Analysis, CellAnalysis, TenantMetrics
from fairshare.analysis.slowdown import METRICS, isolation_index
from fairshare.analysis.stats import CONFIDENCE, Interval
from fairshare.analysis.steadiness import sentences
from fairshare.analysis.verdict import answers

FORMAT_VERSION = 1
_SPREADSHEET_FORMULA = ("=", "+", "-", "@", "\t", "\r")

DEFINITIONS = {
    "latency": "successes of the measured phase; ttft and e2e of an open-loop tenant count from "
    "its schedule, of a closed-loop tenant from the sending; *_send and *_schedule from one start",
    "tpot": "(last chunk - first chunk) / tokens after the first chunk",
    "itl": "gaps between neighbouring chunks with tokens, pooled over requests",
    "throughput": "tokens and ends of requests credited at the time they arrived in the window",
    "slo_attainment": "requests that met all limits / requests of the measured phase, "
    "failures included",
    "empty_chunks": "chunks of successes that carried no token",
    "token_mismatches": "successes whose tokens, counted as they arrived, differ from the server's "
    "usage",
    "goodput_per_s": "requests of the measured phase that met all limits / window",
    "jain": "mean over windows of (sum x)^2 / (n sum x^2); x = (prompt tokens at the first token "
    "+ 2 x output tokens) / weight of each backlogged tenant",
    "backlogged": "a request outstanding for at least 95 % of the window",
    "max_service_difference": "largest difference of service per weight between two tenants over "
    "any stretch of windows in which both were backlogged",
    "jain_even": "Jain's index of service per weight, credited evenly from first to last token, "
    "over all windows together in which all tenants were backlogged (jain_joint: as produced)",
    "jain_attainment": "Jain's index of the tenants' slo_attainment",
    "service": "prompt tokens at the first token + 2 x output tokens as produced; service_even: "
    "spread evenly from first to last token, answered requests only; service_rate: per second",
    "d": "D(t) = sum over tenants of min(max_j s_j - s_i, abs(d_i - s_i)), s and d the rates of "
    "service and demand per weight in a tenth of the window around each of 19 ticks; of answered "
    "requests only",
    "accumulated_difference_max": "largest difference of service per weight since the window's "
    "start between any two tenants",
    "service_bound": "2U of VTC: 2 max(longest prompt, 2 x tokens that the KV cache holds), or, "
    "behind a gateway, 2 (longest prompt + 2 x window x longest answer)",
    "satisfaction": "mean over windows of the smallest service / fair share of any tenant, 1 at "
    "most; fair shares: water-filling of what all got by weight, up to what each still wanted",
    "throttled": "refused: answered 429, or aborted before the first token; throttled_rate: "
    "/ requests",
    "wasted_work_tokens": "prompt and output tokens computed for requests that failed and for "
    "failed interactions; wasted_work_share: over those of all that were decided",
    "run_tokens_per_s": "prompt and output tokens of all successes / the whole run",
    "idle_while_queued": "share of the time with requests queued and room in the gateway's window",
    "queued_service_difference": "max_service_difference while both tenants had requests that "
    "waited for their first token for 95 % of each window: what service_bound is about",
    "differences": "second - first of two modes of one origin in the same setting, paired by "
    "repetition (by seed); interval: Student's t over pairs, of one pair from the runs' own",
    "slowdown": "latency when sharing / latency of the same tenant alone (exclusive), "
    "same repetition",
    "isolation_index": "the worst hit interactive tenant's E2E P99 alone / when sharing, 1 at most",
    "interactions": "begun in the window: their first call was meant for it; completed: every call "
    "answered; failed: a call failed (broken: not the first one); cut: neither, for the window or "
    "the drain (unfinished) ended first; interaction_completion_rate = completed / (completed + "
    "failed), low and high if all that were cut had failed and if none had",
    "interaction_e2e": "completed interactions: end of the last call - intended time of the first, "
    "pauses included; _send from the first sending; interaction_think the pauses, interaction_wait "
    "the rest",
    "wasted_tokens": "prompt and output tokens of all calls of failed interactions; wasted_share: "
    "over those of completed and failed ones; cut_tokens: of those that were cut",
    "drift": "change of a figure from round to round: each cell against its own mean over the "
    "rounds (logarithms), the rounds' means regressed on their numbers; trend: the interval is "
    "clear of 0, and the change over all rounds is 2 % or more",
    "impossible": "what the device cannot have done, with the arithmetic: docs/plausibility.md",
    "percentile": "linear interpolation between order statistics",
    "interval": "95 %: across repetitions Student's t; within one run fractional order statistics "
    "(latency) and Wilson's (attainment), both of as many values as the block bootstrap says the "
    "series is worth, and batch means (rates, jain)",
}


def summary_csv(analysis: Analysis) -> bytes:
    """One line per cell and tenant, one per cell for the total, and one per application.

    ``row`` tells which; applications have lines where a tenant's interactions are of several.
    """
    lines = summary_lines(analysis)
    names = list(dict.fromkeys(name for line in lines for name in line)) or ["cell"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: plain_text(value) for name, value in line.items()})
    return text.getvalue().encode()


def summary_lines(analysis: Analysis) -> list[dict[str, Any]]:
    """The lines of ``summary.csv`` as values by column; a line need not have all columns."""
    lines: list[dict[str, Any]] = []
    for cell in analysis.cells:
        found = cell.rows()
        lines += [_line(cell, metrics) for metrics in found] if found else [_line(cell, None)]
        lines += [line for metrics in found for line in _app_lines(cell, metrics)]
    return lines


def summary_json(analysis: Analysis, made: Sequence[Row]) -> bytes:
    """Everything, nested: each cell, the repetitions brought together, and the definitions."""
    document = {
        "format_version": FORMAT_VERSION,
        "name": analysis.name,
        "confidence": CONFIDENCE,
        "definitions": DEFINITIONS,
        "cells": [_cell(cell) for cell in analysis.cells],
        "killed": list(analysis.killed),
        "comparison": [_comparison(row) for row in made],
        "differences": [_between(each) for each in between_modes(analysis.cells)],
        "verdict": [line.as_json() for answer in answers(analysis) for line in answer.lines],
        "drift": [drift.document() for drift in drifts(analysis.cells)],
        "provenance": analysis.matrix.get("provenance"),
    }
    return orjson.dumps(
        document, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    )


def _identity(cell: CellAnalysis) -> dict[str, Any]:
    result = cell.result
    return {
        "cell": result.id,
        "scenario": result.key.scenario,
        "mode": result.key.mode.value,
        "label": result.split_label,
        "policy": result.key.policy,
        "scheduling": result.key.scheduling,
        "concurrency": result.key.concurrency,
        "load_scale": result.key.load_scale,
        "repetition": result.key.repetition,
        "status": result.status.value,
        "provenance": result.provenance.value,
        "marks": [mark.value for mark in cell.marks],
        "notes": [*result.notes, *sentences([cell.unsteady])],
        "reason": result.reason,
        "window_s": cell.window_s,
        "impossible": [str(violation) for violation in cell.plausibility.violations],
    }


def _flat_identity(cell: CellAnalysis) -> dict[str, Any]:
    line = _identity(cell)
    return line | {name: "; ".join(line[name]) for name in ("marks", "notes", "impossible")}


def _line(cell: CellAnalysis, metrics: TenantMetrics | None) -> dict[str, Any]:
    line = _flat_identity(cell)
    if metrics is None:
        return line | {"row": "cell", "tenant": None}
    total = metrics.tenant is None
    line |= {"row": "total" if total else "tenant", "tenant": metrics.tenant}
    line |= metrics.values()
    line["errors_by_kind"] = "; ".join(f"{kind}={n}" for kind, n in metrics.errors.items())
    if total and cell.fairness is not None:
        line |= cell.fairness.values() | {"isolation_index": isolation_index(cell)}
    ratios = cell.slowdown.get(metrics.tenant, {}) if metrics.tenant is not None else {}
    line |= {f"slowdown_{n.removesuffix('_s')}": ratios[n] for n in METRICS if n in ratios}
    return line


def _app_lines(cell: CellAnalysis, metrics: TenantMetrics) -> list[dict[str, Any]]:
    apps = metrics.interactions.apps if metrics.interactions is not None else {}
    return [
        _flat_identity(cell) | {"row": "app", "tenant": metrics.tenant, "app": app} | found.values()
        for app, found in apps.items()
    ]


def plain_text(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula is quoted as text."""
    if isinstance(value, str) and value.startswith(_SPREADSHEET_FORMULA):
        return f"'{value}"
    return value


def _cell(cell: CellAnalysis) -> dict[str, Any]:
    return {
        **_identity(cell),
        "tenants": [_metrics(metrics) for metrics in cell.tenants],
        "total": _metrics(cell.total) if cell.total else None,
        "fairness": cell.fairness.values() if cell.fairness else None,
        "slowdown": cell.slowdown,
        "isolation_index": isolation_index(cell),
        "shares": cell.result.shares,
        "client": cell.result.client,
        "plausibility": asdict(cell.plausibility),
    }


def _metrics(metrics: TenantMetrics) -> dict[str, Any]:
    made = {
        "tenant": metrics.tenant,
        **metrics.values(),
        "errors_by_kind": dict(metrics.errors),
        "intervals": _intervals(metrics.intervals),
    }
    if metrics.interactions is not None and metrics.interactions.apps:
        made["apps"] = {
            app: {**found.values(), "intervals": _intervals(found.intervals)}
            for app, found in metrics.interactions.apps.items()
        }
    return made


def _intervals(intervals: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: asdict(interval) for name, interval in intervals.items()}


def _comparison(row: Row) -> dict[str, Any]:
    apps = {app: _sorted(found) for app, found in row.apps.items()}
    return {
        "scenario": row.setting.scenario,
        "load_scale": row.setting.load_scale,
        "concurrency": row.setting.concurrency,
        "mode": row.mode.value,
        "label": row.label,
        "policy": row.policy,
        "scheduling": row.scheduling,
        "tenant": row.tenant,
        "provenance": row.provenance.value,
        "marks": [mark.value for mark in row.marks],
        "notes": list(row.notes),
        "repetitions": row.repetitions,
        "best": sorted(row.best),
        "metrics": _sorted(row.estimates),
    } | ({"apps": apps} if apps else {})


def _between(each: Between) -> dict[str, Any]:
    found = each.difference
    return {
        "scenario": each.setting.scenario,
        "load_scale": each.setting.load_scale,
        "concurrency": each.setting.concurrency,
        "tenant": each.tenant,
        "metric": each.metric,
        "first": each.first,
        "second": each.second,
        "pairs": found.pairs,
        "change": found.change,
        "interval": None if found.interval is None else asdict(found.interval),
    }


def _sorted(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: asdict(estimate) for name, estimate in sorted(estimates.items())}
