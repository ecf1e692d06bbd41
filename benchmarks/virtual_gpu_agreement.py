"""Virtual time against real-time servers: ``python -m benchmarks.virtual_gpu_agreement``.

Each shipped scenario (or those named) is run with real servers on a simulated A100-80 and predicted
in virtual time with the same requests; what came out is kept in a CSV file, from which ``python -m
benchmarks.virtual_gpu accuracy`` makes the table in ``virtual-gpu.md``. The host should be idle:
the file says how many wanted its processors.
"""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairshare.records import Phase, RequestRecord
from fairshare.results.store import ResultStore, StoredCell
from fairshare.runner.against import Compared, predict_against
from fairshare.virtual.physics import PUBLISHED

KEPT = Path(__file__).with_name("virtual-gpu-agreement.csv")
DEVICE = "virtual:a100-80"  # on which four servers of Qwen3-4B have room
_NEAR = 0.05
_NAMES = ("scenario", "cell", "tenant", "figure")
_NUMBERS = ("servers", "virtual_time", "paired", "load")
_MODES = ("--modes", "logical,timeslice,mps,mig")
_CLOSED = ("--concurrency", "4")
# The suites last ten minutes a cell and ask which policy is fair: of each the beginning, on one
# server, where a request of 768 tokens still comes to its end.
_BEGINNING = ("--modes", "logical", "--warmup", "2s", "--window", "15s")
_SUITES = (
    *("ablation-rpm", "dist-shift", "increase", "on-off-less", "on-off-overload", "overload"),
    *("overload-multi", "overload-weighted", "overload-s4", "overload-s4-short"),
    *("overload-s4-long", "overload-s4-35000-128", "overload-s4-35000-256"),
    *("overload-s4-35000-512", "overload-s4-35000-768", "poisson-on-off-overload"),
    *("poisson-short-long", "poisson-short-long-2", "proportional", "real"),
)
# What is said of each scenario; warm-up, window and drain are its own but for the suites.
SCENARIOS: dict[str, tuple[str, ...]] = {
    "two-tenants": (*_MODES, *_CLOSED),
    "four-tenants": (*_MODES, *_CLOSED),
    "noisy-neighbor": (*_MODES, *_CLOSED),
    "short-and-long": _MODES,
    "light-and-heavy": (
        *("--modes", "logical", "--policies", "fcfs,vtc", "--scheduling", "engine"),
        *("--engine-arg", "max_num_seqs=16"),
    ),
    "conversations": (*_MODES, *_CLOSED),
    "fairserve-chains": _MODES,
    "azure-2023": _MODES,
    **{f"vtc-{suite}": _BEGINNING for suite in _SUITES},
}
_ABOUT = """## Virtual time and real-time servers

`python -m benchmarks.virtual_gpu_agreement`: every shipped scenario on `--device virtual:a100-80`
(Qwen3-4B), a process for each server and HTTP between, against the same cells in virtual time; four
requests in flight where the scenario leaves that open. Warm-up, window and drain are the scenario's
own, but of each `vtc` suite the first 15 s on one server: they last ten minutes a cell, and ask
which policy is fair. An idle host was simulated on two cores that were not: servers and client ran
at a real-time priority above everything else. All cells but those of `light-and-heavy` were
compared before the constants above were last fitted, both sides with the same older ones. The CSV
file has every tenant.

Virtual over servers, less one: tokens/s of all tenants; of latencies the tenant's that is furthest
off (a median over unlike tenants lies in the gap between them, and jumps): first of its median,
then the median over its requests of how far each is from itself. Now and then a request comes an
iteration earlier or later, and others meet in a batch: then medians of a few requests of two kinds
move, and requests as such do not. ~: within the 95 % interval of the servers' own figure.
"""


@dataclass(frozen=True, slots=True)
class Agreed:
    """One figure of one tenant ("all": of all) in one cell, both ways."""

    scenario: str
    cell: str
    tenant: str
    figure: str
    servers: float
    virtual_time: float
    paired: float
    """The same less one, request by request, in the median; of tokens/s as it stands."""
    within: bool
    """Whether virtual time lies in the 95 % interval of what the servers gave."""
    load: float
    """Runnable processes on the host, of the minute before."""

    @property
    def error(self) -> float:
        """Virtual time over servers, less one."""
        return self.virtual_time / self.servers - 1


def run(scenario: str, into: Path) -> list[Agreed]:
    """Run one scenario on servers, predict the same, and set both side by side."""
    load = os.getloadavg()[0]
    folder = into / scenario
    subprocess.run(
        [
            *(sys.executable, "-m", "fairshare", "matrix", scenario, "--device", DEVICE),
            *(*SCENARIOS[scenario], "--output-dir", str(folder), "--no-report"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    predicted = into / f"predicted-{scenario}"
    compared, missing = predict_against(
        folder, predicted, gpu=None, model=None, constants=PUBLISHED
    )
    for cell in missing:
        print(f"not predicted: {cell.cell}: {cell.reason}")
    pairs = {
        (cell.result.key.slug, *which): error
        for cell in ResultStore.open(folder).cells()
        if (predicted / cell.dir.name).exists()
        for [twin] in [ResultStore.open(predicted / cell.dir.name).cells()]
        for which, error in _paired(cell, twin).items()
    }
    return [_agreed(scenario, one, pairs, load) for one in compared]


def _paired(servers: StoredCell, virtual: StoredCell) -> dict[tuple[str, str], float]:
    """By tenant and latency: how far apart a request is from itself, in the median."""
    apart: dict[tuple[str, str], list[float]] = defaultdict(list)
    twins = {record.id: record for record in virtual.records()}
    for record in servers.records():
        twin = twins.get(record.id)
        if twin is None or not (record.ok and twin.ok) or record.phase is not Phase.MEASURE:
            continue
        for (figure, here), there in zip(
            _latencies(record).items(), _latencies(twin).values(), strict=True
        ):
            apart[record.tenant, figure].append(there / here - 1)
    return {which: statistics.median(errors) for which, errors in apart.items()}


def _latencies(record: RequestRecord) -> dict[str, float]:
    """What an answered request took, in ns, under the names of the figures."""
    sent, first, end = record.sent_ns, record.first_token_ns, record.end_ns
    assert sent is not None and first is not None and end is not None
    tokens = record.output_tokens or 0
    # A single token has no time per token.
    per_token = (record.chunk_ns[-1] - first) / (tokens - 1) if tokens > 1 else 1.0
    return {"TTFT P50": first - sent, "TPOT P50": per_token, "E2E P50": end - sent}


def _agreed(
    scenario: str, one: Compared, pairs: Mapping[tuple[str, str, str], float], load: float
) -> Agreed:
    tenant = one.tenant or "all"
    return Agreed(
        scenario=scenario,
        cell=one.cell.removeprefix(f"{scenario}_"),
        tenant=tenant,
        figure=one.figure,
        servers=one.measured,
        virtual_time=one.predicted,
        paired=pairs.get((one.cell, tenant, one.figure), one.error),
        within=one.within,
        load=load,
    )


def kept() -> list[Agreed]:
    """What was measured last, of every scenario."""
    if not KEPT.exists():
        return []
    with KEPT.open(encoding="utf-8") as file:
        return [
            Agreed(
                **{name: row[name] for name in _NAMES},
                **{name: float(row[name]) for name in _NUMBERS},
                within=row["within"] == "True",
            )
            for row in csv.DictReader(file)
        ]


def keep(rows: Sequence[Agreed]) -> None:
    """Put these in the place of what was kept of their scenarios."""
    fresh = {row.scenario for row in rows}
    order = list(SCENARIOS)
    both = [*(row for row in kept() if row.scenario not in fresh), *rows]
    both.sort(key=lambda row: order.index(row.scenario))
    with KEPT.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Agreed.__slots__)
        for row in both:
            writer.writerow(
                [
                    *(row.scenario, row.cell, row.tenant, row.figure),
                    *(f"{value:.6g}" for value in (row.servers, row.virtual_time, row.paired)),
                    *(row.within, f"{row.load:.2g}"),
                ]
            )


def table(agreed: Sequence[Agreed]) -> str:
    """Virtual time beside real-time servers, cell by cell, for ``virtual-gpu.md``."""
    throughput, *latencies = dict.fromkeys(each.figure for each in agreed)
    cells: dict[tuple[str, str], list[Agreed]] = defaultdict(list)
    for each in agreed:
        if (each.tenant == "all") == (each.figure == throughput):
            cells[each.scenario, each.cell].append(each)
    heads = [throughput, *(f"{figure} | same requests" for figure in latencies)]
    lines = [_ABOUT, f"| cell | {' | '.join(heads)} |", "| --- |" + " ---: |" * 7]
    for (scenario, cell), found in cells.items():
        shown = [_furthest(found, throughput).split(" | ")[0]]
        shown += [_furthest(found, figure) for figure in latencies]
        lines.append(f"| {scenario}, {cell} | {' | '.join(shown)} |")
    lines.append("")
    every = [each for found in cells.values() for each in found]
    lines += [_summed(every, figure) for figure in (throughput, *latencies)]
    return "\n".join([*lines, ""])


def _furthest(found: Sequence[Agreed], figure: str) -> str:
    rows = [each for each in found if each.figure == figure]
    off = max(rows, key=lambda each: abs(each.error))
    paired = max((each.paired for each in rows), key=abs)
    return f"{100 * off.error:+.1f} %{' ~' * off.within} | {100 * paired:+.1f} %"


def _summed(every: Sequence[Agreed], figure: str) -> str:
    rows = [each for each in every if each.figure == figure]
    errors, pairs = [abs(each.error) for each in rows], [abs(each.paired) for each in rows]
    near = sum(error <= _NEAR for error in errors)
    same = sum(abs(each.error) > _NEAR and each.within for each in rows)
    told = (
        f"- {figure}: {100 * statistics.mean(errors):.1f} % apart on average, {near} of "
        f"{len(rows)} within 5 %, {same} more within the interval"
    )
    if "P50" not in figure:
        return told
    near = sum(error <= _NEAR for error in pairs)
    return told + (f"; the same requests {100 * statistics.mean(pairs):.1f} %, {near} within 5 %")


def main(names: Sequence[str]) -> None:
    """Measure the scenarios that are named, else all."""
    for name in names or SCENARIOS:
        with tempfile.TemporaryDirectory() as folder:
            rows = run(name, Path(folder))
        keep(rows)
        for figure in dict.fromkeys(row.figure for row in rows):
            errors = [100 * abs(row.error) for row in rows if row.figure == figure]
            pairs = [100 * abs(row.paired) for row in rows if row.figure == figure]
            print(
                f"{name}, {figure}: {statistics.mean(errors):.1f} % apart on average, "
                f"{max(errors):.1f} % at most; paired {max(pairs):.1f} % at most",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
