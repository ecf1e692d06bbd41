"""What policies change against first come, first served, paired by repetition.

    python -m benchmarks.policies RESULTS [--tenant light]

RESULTS is a folder with at least two repetitions of one scenario under several policies. Each
policy is compared with `fcfs` at its own place, where there is one, and with the engine's own
order. Ratios are formed within each repetition; the interval is Student's t at 95 % over their
logarithms.

The difference of service is the largest between two tenants that both had requests queued all the
while (input tokens, and output tokens twice), by the scheduler's own log of decisions: the client
knows only later who was served, and much later where the machine is busy. An answer counts when it
ends.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import orjson

from fairshare.analysis.stats import t_interval
from fairshare.results import layout
from fairshare.results.packed import opened, stored

Cell = Mapping[str, Any]
Way = tuple[str, str | None]  # policy and place
_ENDS = ("finished", "cancelled", "failed")


@dataclass(frozen=True, slots=True)
class Figures:
    """What is taken from one cell."""

    ttft_p50_s: float
    tokens_per_s: float
    difference: float
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
        log = options.results / layout.CELLS / layout.cell_folder(cell["cell"]) / layout.SCHEDULING
        figures = _figures(cell, options.tenant, _difference(log))
        found.setdefault(way, {})[cell["repetition"]] = figures
    for way, runs in sorted(found.items(), key=str):
        medians = ", ".join(f"{run.ttft_p50_s:.2f}" for _, run in sorted(runs.items()))
        bounds = [run.bound for run in runs.values() if run.bound is not None]
        print(f"{_name(way)}: TTFT P50 of {options.tenant} {medians} s", end="")
        if way[1] is not None:
            print(f"; largest difference {max(r.difference for r in runs.values()):,.0f}", end="")
            print(f" (2U {min(bounds):,.0f})" if bounds else "", end="")
        print()
    for way, base in _pairs(found):
        both = sorted(found[way].keys() & found[base].keys())
        ours, theirs = ([found[each][k] for k in both] for each in (way, base))
        falls = [b.ttft_p50_s / a.ttft_p50_s for a, b in zip(ours, theirs, strict=True)]
        keeps = [a.tokens_per_s / b.tokens_per_s for a, b in zip(ours, theirs, strict=True)]
        print(f"{_name(way)} against {_name(base)}, {len(both)} pairs:")
        print(f"  TTFT P50 of {options.tenant} falls {_ratio(falls)}; throughput {_ratio(keeps)}")


def _figures(cell: Cell, tenant: str, difference: float) -> Figures:
    (row,) = (row for row in cell["tenants"] if row["tenant"] == tenant)
    bound = cell["fairness"]["service_bound"]
    return Figures(row["ttft_p50_s"], cell["total"]["total_tokens_per_s"], difference, bound)


def _difference(log: Path) -> float:
    """The largest between any two tenants since both have requests queued; 0 without a log."""
    queued: Counter[str] = Counter()
    service: Counter[str] = Counter()
    running: set[str] = set()
    since: dict[tuple[str, str], tuple[float, float]] = {}
    worst = 0.0
    for line in _lines(log):
        _count(line, queued, service, running)
        for pair in combinations(sorted(queued), 2):
            if not all(queued[tenant] > 0 for tenant in pair):
                since.pop(pair, None)
                continue
            apart = float(service[pair[0]] - service[pair[1]])
            low, high = since.get(pair, (apart, apart))
            since[pair] = min(low, apart), max(high, apart)
            worst = max(worst, since[pair][1] - since[pair][0])
    return worst


def _count(
    line: Mapping[str, Any], queued: Counter[str], service: Counter[str], running: set[str]
) -> None:
    event, tenant, request = line["event"], line.get("tenant"), line.get("request")
    if tenant is None or request is None:
        return
    if event == "arrived":
        queued[tenant] += 1
    elif event == "admitted":
        queued[tenant] -= 1
        running.add(request)
        service[tenant] += line["prompt_tokens"]
    elif event in _ENDS and request in running:
        running.discard(request)
        service[tenant] += 2 * line["output_tokens"]
    elif event in _ENDS:
        queued[tenant] -= 1


def _lines(log: Path) -> Iterator[dict[str, Any]]:
    if (there := stored(log)) is not None:
        with opened(there) as file:
            yield from map(orjson.loads, file)


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
