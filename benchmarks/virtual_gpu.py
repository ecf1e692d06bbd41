"""How exact and fast the simulated GPU is: ``python -m benchmarks.virtual_gpu fit|accuracy|speed``.

``fit`` (a minute) and ``accuracy`` need the published tables (``virtual_gpu_rows``): the one
fits the constants to both splits and to all rows (``virtual_gpu_fit``) and keeps them in
``virtual-gpu-fits.yaml``, the other writes ``virtual-gpu.md`` with them.
"""

from __future__ import annotations

import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks import virtual_gpu_rows as rows
from benchmarks.virtual_gpu_fit import ALL, FITTED, POINTS, Floats, Published, Surface
from benchmarks.virtual_gpu_fit import fit as fit_rows
from benchmarks.virtual_gpu_report import report
from fairshare.devices.constants import gpu_spec
from fairshare.scheduling.fcfs import Fcfs
from fairshare.scheduling.policies import policy_for
from fairshare.scheduling.policy import SchedulingPolicy
from fairshare.virtual.clock import Clock
from fairshare.virtual.contention import Alone, MpsClients, Partition, TimeSlices
from fairshare.virtual.course import Lane
from fairshare.virtual.deployed import GpuFigures
from fairshare.virtual.engine import Engine, Limits, Work
from fairshare.virtual.engine import Sequence as Request
from fairshare.virtual.models import virtual_model
from fairshare.virtual.physics import PUBLISHED, Costs, drawable_bandwidth
from fairshare.virtual.rules import MpsClient, TimeSliced
from fairshare.virtual.simulated import Flight, SimulatedServer

LIMITS = Limits(256, 2048, 40_000)
SETTLED = 8  # sweeps after which speeds under MPS change no more
MANY_PER_S = 355.0  # a little more than the server can do
FIGURES = ("tok_s", "ttft", "itl")
TTFT = FIGURES.index("ttft")
REPORT = Path(__file__).with_name("virtual-gpu.md")
FITS = Path(__file__).with_name("virtual-gpu-fits.yaml")
_FITS_HEAD = """# Written by `python -m benchmarks.virtual_gpu fit`; not to be edited.
# left_out: mean error of fitted rows, each predicted from the others, in parts of what is allowed
# (3 % of tok/s, 15 % of TTFT, 5 % of ITL), by how differences were weighed and the scatter.
"""


def fit() -> None:
    """Fit the constants to both splits and to all rows; keep them with how they were found."""
    measured = rows.published()
    order = [row for row in rows.ROWS if row in measured]
    figures = np.log([astuple(measured[row]) for row in order])
    for row in rows.undetermined():
        figures[order.index(row), TTFT] = np.nan
    surface = Surface(_simulated_at)
    taxes = [rows.shared_by(pods) for pods in (3, 5, 7)]
    kept: dict[str, Any] = {
        "points": POINTS,
        "surface_errors": dict(zip(FIGURES, _rounded(surface.errors.mean(axis=0)), strict=True)),
    }
    for name, fitted in {**rows.splits(), ALL: order}.items():
        published = Published(figures, taxes if name == ALL else taxes[:1])
        found = fit_rows(surface, published, [order.index(row) for row in fitted])
        kept[name] = {
            "constants": found.constants,
            "weights": found.chosen.weights,
            "scatter": found.chosen.scatter,
            "left_out": {f"{c.weights}, {c.scatter}": round(c.score, 3) for c in found.candidates},
        }
    FITS.write_text(_FITS_HEAD + yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    print(f"{FITS.read_text(encoding='utf-8')}\nwritten: {FITS}")


def _simulated_at(point: dict[str, float], number: int) -> Floats:
    """All figures of all rows at some constants and scatter, in a single run."""
    scatter = point["scatter"]
    constants = replace(PUBLISHED, **{name: point[name] for name in FITTED})
    predicted = rows.simulated(constants, scatter, chances=[number])
    return np.array([astuple(predicted[row]) for row in rows.ROWS])


def _rounded(values: Floats) -> list[float]:
    return [float(f"{value:.2g}") for value in values]


def accuracy() -> None:
    """Write every row beside what was published, with the constants that were fitted."""
    REPORT.write_text(report(yaml.safe_load(FITS.read_text(encoding="utf-8"))), encoding="utf-8")
    print(f"written: {REPORT}")


def speed() -> None:
    """Simulated requests per CPU second; H200, Qwen3-0.6B, 512/128 tokens, Poisson 40/s in all."""
    for mode, tenants in [
        ("one engine", 1),
        ("timeslice", 2),
        ("timeslice", 8),
        ("mig", 8),
        ("mps", 2),
        ("mps", 4),
        ("mps", 8),
    ]:
        best = max(_simulate(mode, tenants, 8000)[0] for _ in range(3))
        print(f"{mode:12s} {tenants} tenants: {best:9,.0f} requests per CPU second")
    for count in (4000, 16_000, 64_000):
        rate, _ = _simulate("timeslice", 8, count)
        print(f"timeslice    8 tenants, {count:6d} requests: {1e6 / rate:6.1f} us for each")
    once, again = (_simulate("mps", 4, 2000)[1] for _ in range(2))
    print(f"same bits twice: {once == again}")
    _mean_field()


def _mean_field() -> None:
    """How much is lost under MPS by counting iterations together, and finding speeds once."""
    for tenants in (2, 4, 8):
        exact = _simulate("mps", tenants, 2000, exact=True)[1]
        fast = _simulate("mps", tenants, 2000)[1]
        off = statistics.mean(fast) / statistics.mean(exact) - 1
        each = [abs(a / b - 1) for a, b in zip(fast, exact, strict=True)]
        print(
            f"mps, {tenants} tenants, against one by one with settled speeds: mean E2E "
            f"{100 * off:+.2f} %, each request {100 * statistics.mean(each):.2f} % on average, "
            f"{100 * max(each):.1f} % at most"
        )


def _simulate(
    mode: str, tenants: int, count: int, exact: bool = False
) -> tuple[float, list[float]]:
    """Requests per CPU second, and the end-to-end time of each request.

    ``exact``: one iteration after the other, speeds under MPS found until they agree.
    """
    clock = Clock()
    shared: Partition
    if mode == "timeslice":
        shared = TimeSlices(clock, PUBLISHED.timeslice_tax)
    elif mode == "mps":
        shared = MpsClients(clock, PUBLISHED, sweeps=SETTLED if exact else 1)
    costs = Costs.of(GpuFigures.of(gpu_spec("h200")), virtual_model("qwen3-0.6b"))
    share = 1 / tenants if mode == "mps" else 1.0
    lane = Lane(costs, PUBLISHED, share, drawable_bandwidth(share))
    servers = [
        SimulatedServer(
            clock,
            shared if mode in ("timeslice", "mps") else Alone(clock),
            _Stepwise() if exact else Engine(LIMITS),
            lane,
            MpsClient(share) if mode == "mps" else TimeSliced(),
            front_end_s=0.0,
            keep_token_times=False,
        )
        for _ in range(tenants)
    ]
    rng = random.Random(1)
    flights: list[Flight] = []
    done: list[Flight] = []

    def fire(number: int) -> None:
        flights.append(Flight(Request(str(number), "", 512, 128), done.append))
        servers[number % tenants].submit(flights[-1])
        if number + 1 < count:
            clock.at(clock.now_s + rng.expovariate(40.0), fire, number + 1)

    clock.at(0.0, fire, 0)
    before_s = time.process_time()
    clock.run(until=lambda: len(done) == count)
    spent_s = time.process_time() - before_s
    return count / spent_s, [(f.end_s or 0.0) - f.sent_s for f in flights]


class _Stepwise(Engine):
    """Counts one iteration at a time."""

    def __init__(self) -> None:
        super().__init__(LIMITS)

    def begin(self, now_s: float) -> Work | None:
        """The next iteration."""
        work = super().begin(now_s)
        if work is not None:
            work.steps = 1
        return work


def many(policy: str = "vtc", count: int = 1_000_000, tenants: int = 1000) -> None:
    """Many requests of many tenants on one server under a policy: seconds and memory."""
    clock = Clock()
    costs = Costs.of(GpuFigures.of(gpu_spec("h200")), virtual_model("qwen3-0.6b"))
    chosen: SchedulingPolicy = Fcfs() if policy == "fcfs" else policy_for(policy)
    engine = Engine(Limits(64, 2048, 40_000), chosen)
    server = SimulatedServer(
        clock, Alone(clock), engine, Lane(costs, PUBLISHED), TimeSliced(),
        front_end_s=0.0, keep_token_times=False,
    )  # fmt: skip
    rng = random.Random(1)
    ended = [0]
    longest = [0]

    def end(flight: Flight) -> None:
        ended[0] += 1
        longest[0] = max(longest[0], engine.waiting)

    def fire(number: int) -> None:
        tenant = f"t{rng.randrange(tenants)}"
        server.submit(Flight(Request(str(number), tenant, 256, rng.randint(32, 96)), end))
        if number + 1 < count:
            clock.at(clock.now_s + rng.expovariate(MANY_PER_S), fire, number + 1)

    clock.at(0.0, fire, 0)
    before_s = time.process_time()
    clock.run(until=lambda: ended[0] == count)
    spent_s = time.process_time() - before_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{policy}: {count:,} requests of {tenants:,} tenants in {spent_s:.0f} CPU s, "
        f"{peak:.0f} MiB at most, {clock.now_s / 3600:.1f} hours simulated, "
        f"at most {longest[0]:,} waiting"
    )


def main(words: Sequence[str]) -> None:
    """Run what is named."""
    commands: dict[str, Callable[[], None]] = {
        "fit": fit,
        "accuracy": accuracy,
        "speed": speed,
        "many": many,
    }
    for word in words or ("speed",):
        commands[word]()


if __name__ == "__main__":
    main(sys.argv[1:])
