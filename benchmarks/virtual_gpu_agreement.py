"""Virtual time against real-time servers: ``python -m benchmarks.virtual_gpu_agreement``.

Each scenario (or those named) is run with real servers on a simulated A100-80 and predicted in
virtual time with the same requests; what came out is kept in a CSV file, from which ``python -m
benchmarks.virtual_gpu accuracy`` makes the table in ``virtual-gpu.md``. The host should be idle:
the file says how busy it was.
"""

from __future__ import annotations

import csv
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairshare.runner.against import Compared, predict_against
from fairshare.virtual.physics import PUBLISHED

KEPT = Path(__file__).with_name("virtual-gpu-agreement.csv")
DEVICE = "virtual:a100-80"  # on which four servers of Qwen3-4B have room
_SHARED = "logical,timeslice,mps,mig"
_TIMES = ("--warmup", "2s", "--window", "12s", "--drain", "5s")
# What is changed of each scenario: modes, times, and loads that a GPU of this kind can feel.
SCENARIOS: dict[str, tuple[str, ...]] = {
    "two-tenants": ("--modes", _SHARED, "--concurrency", "2", *_TIMES),
    "four-tenants": ("--modes", _SHARED, "--concurrency", "2", *_TIMES, "--window", "30s"),
    "noisy-neighbor": ("--modes", _SHARED, "--concurrency", "2", *_TIMES),
    "short-and-long": ("--modes", _SHARED, "--warmup", "2s", "--window", "40s", "--drain", "5s"),
    "light-and-heavy": (
        *("--modes", "logical", "--policies", "fcfs,vtc", "--scheduling", "engine"),
        *("--engine-arg", "max_num_seqs=16", *_TIMES),
    ),
    "conversations": ("--modes", _SHARED, "--concurrency", "2", *_TIMES),
    "fairserve-chains": ("--modes", _SHARED, *_TIMES),
    "azure-2023": ("--modes", _SHARED, *_TIMES),
    "vtc-overload": ("--modes", _SHARED, *_TIMES),
    "vtc-poisson-short-long": ("--modes", _SHARED, *_TIMES),
}


@dataclass(frozen=True, slots=True)
class Agreed:
    """One figure of one tenant ("all": of all) in one cell, both ways."""

    scenario: str
    cell: str
    tenant: str
    figure: str
    servers: float
    virtual_time: float
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
    compared, missing = predict_against(
        folder, into / f"predicted-{scenario}", gpu=None, model=None, constants=PUBLISHED
    )
    for cell in missing:
        print(f"not predicted: {cell.cell}: {cell.reason}")
    return [_agreed(scenario, one, load) for one in compared]


def _agreed(scenario: str, one: Compared, load: float) -> Agreed:
    return Agreed(
        scenario=scenario,
        cell=one.cell.removeprefix(f"{scenario}_"),
        tenant=one.tenant or "all",
        figure=one.figure,
        servers=one.measured,
        virtual_time=one.predicted,
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
                *(row[name] for name in ("scenario", "cell", "tenant", "figure")),
                *(float(row[name]) for name in ("servers", "virtual_time")),
                row["within"] == "True",
                float(row["load"]),
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
                    *(f"{value:.6g}" for value in (row.servers, row.virtual_time)),
                    *(row.within, f"{row.load:.2g}"),
                ]
            )


def main(names: Sequence[str]) -> None:
    """Measure the scenarios that are named, else all."""
    for name in names or SCENARIOS:
        with tempfile.TemporaryDirectory() as folder:
            rows = run(name, Path(folder))
        keep(rows)
        for figure in dict.fromkeys(row.figure for row in rows):
            errors = [100 * abs(row.error) for row in rows if row.figure == figure]
            print(
                f"{name}, {figure}: {statistics.mean(errors):.1f} % apart on average, "
                f"{max(errors):.1f} % at most",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
