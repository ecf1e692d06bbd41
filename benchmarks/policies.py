"""What policies change against first come, first served, paired by repetition.

    python -m benchmarks.policies RESULTS [--tenant light]

RESULTS is a folder with at least two repetitions of one scenario under several policies. Each
policy is compared with `fcfs` at its own place, where there is one, and with the engine's own
order. Ratios are formed within each repetition; the interval is Student's t at 95 % over their
logarithms.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fairshare.analysis.stats import t_interval
from fairshare.results import layout

Cell = Mapping[str, Any]
Way = tuple[str, str | None]  # policy and place


@dataclass(frozen=True, slots=True)
class Figures:
    """What is taken from one cell."""

    ttft_p50_s: float
    tokens_per_s: float
    difference: float | None
    bound: float | None


def main() -> None:
    """Print a line for each policy and what it is compared with."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--tenant", default="light", help="whose TTFT is compared")
    options = parser.parse_args()
    summary = options.results / layout.ANALYSIS / layout.SUMMARY_JSON
    cells = [c for c in orjson.loads(summary.read_bytes())["cells"] if c["status"] == "ok"]
    found: dict[Way, dict[int, Figures]] = {}
    for cell in cells:
        way = (cell["policy"], cell["scheduling"])
        found.setdefault(way, {})[cell["repetition"]] = _figures(cell, options.tenant)
    for way, runs in sorted(found.items(), key=str):
        medians = ", ".join(f"{run.ttft_p50_s:.2f}" for _, run in sorted(runs.items()))
        differences = [run.difference for run in runs.values() if run.difference is not None]
        bounds = [run.bound for run in runs.values() if run.bound is not None]
        print(f"{_name(way)}: TTFT P50 of {options.tenant} {medians} s", end="")
        if differences:
            print(f"; largest service difference {max(differences):,.0f}", end="")
            print(f" (2U {min(bounds):,.0f})" if bounds else "", end="")
        print()
    for way, base in _pairs(found):
        both = sorted(found[way].keys() & found[base].keys())
        ours, theirs = ([found[each][k] for k in both] for each in (way, base))
        falls = [b.ttft_p50_s / a.ttft_p50_s for a, b in zip(ours, theirs, strict=True)]
        keeps = [a.tokens_per_s / b.tokens_per_s for a, b in zip(ours, theirs, strict=True)]
        print(f"{_name(way)} against {_name(base)}, {len(both)} pairs:")
        print(f"  TTFT P50 of {options.tenant} falls {_ratio(falls)}; throughput {_ratio(keeps)}")


def _figures(cell: Cell, tenant: str) -> Figures:
    (row,) = (row for row in cell["tenants"] if row["tenant"] == tenant)
    fairness = cell["fairness"]
    return Figures(
        row["ttft_p50_s"],
        cell["total"]["total_tokens_per_s"],
        fairness["max_service_difference"],
        fairness["service_bound"],
    )


def _pairs(found: Mapping[Way, object]) -> Iterator[tuple[Way, Way]]:
    own = ("fcfs", None)
    for way in sorted(found, key=str):
        if way[0] == "fcfs":
            continue
        base = ("fcfs", way[1])
        for each in dict.fromkeys((base, own)):
            if each in found:
                yield way, each


def _name(way: Way) -> str:
    return f"{way[0]} ({way[1] or 'own order'})"


def _ratio(values: list[float]) -> str:
    interval = t_interval([math.log(value) for value in values])
    mean = math.exp(sum(map(math.log, values)) / len(values))
    if interval is None:
        return f"x {mean:.2f}"
    return f"x {mean:.2f} ({math.exp(interval.low):.2f} to {math.exp(interval.high):.2f})"


if __name__ == "__main__":
    main()
