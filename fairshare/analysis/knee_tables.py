"""The knees as a table for people, and as files for other tools."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import orjson

from fairshare.analysis.knee import LEAST_WINDOWS
from fairshare.analysis.knees import Knee, Point
from fairshare.analysis.stats import CONFIDENCE
from fairshare.analysis.table import (
    ABSENT,
    TOTAL,
    Column,
    Table,
    TableCell,
    TableRow,
    format_number,
    format_percent,
    visible,
)

FORMAT_VERSION = 1
RULE = (
    "A load is met if the 95 % interval of every tenant's share of requests within its SLO lies at "
    "or above what is required, missed if one lies wholly below it; until then another window is "
    f"measured (at least {LEAST_WINDOWS}). The interval is Wilson's, of as many independent "
    "requests as the spread between the windows shows. What is open after the last window is not "
    "decided, and counts as not met."
)
_PLAIN = {
    "knee": "highest load that is met: a factor on all rates, or requests in flight per tenant",
    "req/s": "requests a second meant to be sent there by tenants with an SLO",
    "SLO met": "share of requests within the SLO there, of the tenant that comes off worst",
    "not met": "lowest load above it that is not shown to be met",
    "SLO met there": "the same share at that load",
    "points": "loads that were tried",
    "windows": "windows that were measured, over all points",
    "answer": "whether the two enclose the knee, and what is open",
}
_COLUMNS = tuple(Column(name, "", format_number, meaning) for name, meaning in _PLAIN.items())


def knee_tables(knees: Sequence[Knee]) -> list[Table]:
    """One table per scenario, one row per mode."""
    return [
        Table(
            title=visible(_title([knee for knee in knees if knee.scenario == scenario])),
            columns=_COLUMNS,
            rows=tuple(_row(knee) for knee in knees if knee.scenario == scenario),
        )
        for scenario in dict.fromkeys(knee.scenario for knee in knees)
    ]


def knee_csv(knees: Sequence[Knee]) -> bytes:
    """One line per knee."""
    text = io.StringIO()
    lines = [_line(knee) for knee in knees]
    writer = csv.DictWriter(text, list(lines[0]), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().encode("utf-8", "replace")


def knee_json(knees: Sequence[Knee]) -> bytes:
    """Every knee with its points, and their windows and cells."""
    document = {
        "format_version": FORMAT_VERSION,
        "confidence": CONFIDENCE,
        "rule": RULE,
        "knees": [
            {**_line(knee), "points": [_point(point) for point in knee.points]} for knee in knees
        ],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _title(knees: Sequence[Knee]) -> str:
    return f"{knees[0].scenario}: highest load with {format_percent(knees[0].required)} within SLO"


def _row(knee: Knee) -> TableRow:
    low, high = knee.at(knee.bracket.low), knee.at(knee.bracket.high)
    windows = sum(len(point.windows) for point in knee.points)
    figures = (
        TableCell(knee.load_text(knee.bracket.low)),
        TableCell(_rate(low)),
        _met(low),
        TableCell(knee.load_text(knee.bracket.high)),
        _met(high),
        TableCell(str(len(knee.points))),
        TableCell(str(windows)),
        TableCell(visible(knee.says)),
    )
    return TableRow(
        mode=visible(knee.label),
        tenant=TOTAL if knee.tenant is None else visible(knee.tenant),
        total=knee.tenant is None,
        baseline=knee.tenant is not None,
        figures=figures,
        provenance=knee.provenance.value,
        marks=tuple(mark.value for mark in knee.marks),
        notes=(),
        repetitions=windows,
        errors="",
    )


def _rate(point: Point | None) -> str:
    if point is None or point.offered_per_s is None:
        return ABSENT
    return format_number(point.offered_per_s)


def _met(point: Point | None) -> TableCell:
    worst = None if point is None else point.worst
    if worst is None:
        return TableCell(ABSENT)
    low, high = format_percent(worst.interval.low), format_percent(worst.interval.high)
    return TableCell(f"{format_percent(worst.share)} ({visible(worst.tenant)})", f"{low} to {high}")


def _line(knee: Knee) -> dict[str, Any]:
    line: dict[str, Any] = {
        "scenario": knee.scenario,
        "mode": knee.label,
        "tenant": knee.tenant,
        "provenance": knee.provenance.value,
        "marks": " ".join(mark.value for mark in knee.marks),
        "axis": knee.axis.value,
        "required_attainment": knee.required,
        "answer": knee.says,
    }
    for end, load in (("knee", knee.bracket.low), ("not_met", knee.bracket.high)):
        point = knee.at(load)
        worst = None if point is None else point.worst
        line |= {
            end: load,
            f"{end}_verdict": None if point is None else point.verdict,
            f"{end}_requests_per_s": None if point is None else point.offered_per_s,
            f"{end}_worst_tenant": None if worst is None else worst.tenant,
            f"{end}_attainment": None if worst is None else worst.share,
            f"{end}_attainment_low": None if worst is None else worst.interval.low,
            f"{end}_attainment_high": None if worst is None else worst.interval.high,
            f"{end}_windows": None if point is None else len(point.windows),
        }
    windows = sum(len(point.windows) for point in knee.points)
    return line | {"points_tried": len(knee.points), "windows": windows}


def _point(point: Point) -> dict[str, Any]:
    worst = point.worst
    return {
        "load": point.load,
        "verdict": point.verdict,
        "requests_per_s": point.offered_per_s,
        "worst_tenant": None if worst is None else worst.tenant,
        "attainment": None if worst is None else worst.share,
        "interval": None if worst is None else [worst.interval.low, worst.interval.high],
        "cells": list(point.cells),
        "windows": [
            None if window is None else {name: [t.met, t.asked] for name, t in window.items()}
            for window in point.windows
        ],
    }
