"""How exact and fast the simulated GPU is: ``python -m benchmarks.virtual_gpu fit|accuracy|speed``.

``fit`` (minutes) and ``accuracy`` need the published tables (``virtual_gpu_rows``): the one fits
the constants to both splits and keeps them in ``virtual-gpu-fits.yaml``, the other writes
``virtual-gpu.md`` with them.
"""

from __future__ import annotations

import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from benchmarks import virtual_gpu_rows as rows
from benchmarks.virtual_gpu_fit import Floats, fit_constants
from benchmarks.virtual_gpu_report import report
from fairshare.devices.constants import gpu_spec
from fairshare.scheduling.fcfs import Fcfs
from fairshare.scheduling.policies import policy_for
from fairshare.scheduling.policy import SchedulingPolicy
from fairshare.virtual.clock import Clock
from fairshare.virtual.contention import Alone, Contended, Partition, TimeSlices
from fairshare.virtual.course import Lane
from fairshare.virtual.deployed import GpuFigures
from fairshare.virtual.engine import Engine, Limits, Work
from fairshare.virtual.engine import Sequence as Request
from fairshare.virtual.models import virtual_model
from fairshare.virtual.physics import PUBLISHED, Constants, Costs, drawable_bandwidth
from fairshare.virtual.rules import MpsClient, SharingKind, TimeSliced
from fairshare.virtual.simulated import Flight, SimulatedServer

FITTED = (
    "compute_efficiency",
    "memory_efficiency",
    "layer_latency_s",
    "timeslice_tax",
    "front_end_s",
)
MANY_PER_S = 355.0  # a little more than the server can do
# A difference counts by the error that is allowed for it: 3 %, 15 % and 5 %.
WEIGHTS = rows.Figures(tok_s=1.0, ttft_ms=0.2, itl_ms=0.6)
REPORT = Path(__file__).with_name("virtual-gpu.md")
FITS = Path(__file__).with_name("virtual-gpu-fits.yaml")


def fit() -> None:
    """Fit the constants to both splits, and keep them."""
    fits = {name: fitted_to(fitted) for name, fitted in rows.splits().items()}
    kept = {name: {f: float(f"{getattr(c, f):.4g}") for f in FITTED} for name, c in fits.items()}
    FITS.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    print(f"{kept}\nwritten: {FITS}")


def fitted_to(fitted: Sequence[rows.Row]) -> Constants:
    """The five site- and device-dependent constants that fit some rows best."""
    measured, undetermined = rows.published(), rows.undetermined()

    def residuals(constants: Constants) -> Floats:
        predicted = rows.simulated(constants)
        parts: list[float] = []
        for row in fitted:
            off = predicted[row].over(measured[row])
            parts += [WEIGHTS.tok_s * np.log1p(off.tok_s), WEIGHTS.itl_ms * np.log1p(off.itl_ms)]
            if row not in undetermined:
                parts.append(WEIGHTS.ttft_ms * np.log1p(off.ttft_ms))
        parts.append(WEIGHTS.tok_s * np.log(constants.timeslice_tax / rows.shared_by_three()))
        return np.array(parts)

    return fit_constants(residuals, PUBLISHED, FITTED)


def accuracy() -> None:
    """Write every row beside what was published, with the constants that were fitted."""
    kept = yaml.safe_load(FITS.read_text(encoding="utf-8"))
    fits = {name: replace(PUBLISHED, **values) for name, values in kept.items()}
    REPORT.write_text(report(fits, FITTED), encoding="utf-8")
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
    """How much is lost by finding speeds under MPS once for a whole course."""
    exact = _simulate("mps", 4, 4000, longest=1)[1]
    fast = _simulate("mps", 4, 4000)[1]
    off = statistics.mean(fast) / statistics.mean(exact) - 1
    each = [abs(a / b - 1) for a, b in zip(fast, exact, strict=True)]
    print(
        f"mps, iterations together against one by one: mean E2E {100 * off:+.2f} %, each request "
        f"{100 * statistics.mean(each):.2f} % on average, {100 * max(each):.1f} % at most"
    )


def _simulate(
    mode: str, tenants: int, count: int, longest: int | None = None
) -> tuple[float, list[float]]:
    """Requests per CPU second, and the end-to-end time of each request."""
    clock = Clock()
    shared: Partition
    if mode == "timeslice":
        shared = TimeSlices(clock, PUBLISHED.timeslice_tax)
    elif mode == "mps":
        shared = Contended(clock, SharingKind.MPS)
    costs = Costs.of(GpuFigures.of(gpu_spec("h200")), virtual_model("qwen3-0.6b"))
    share = 1 / tenants if mode == "mps" else 1.0
    lane = Lane(costs, PUBLISHED, share, drawable_bandwidth(share))
    servers = [
        SimulatedServer(
            clock,
            shared if mode in ("timeslice", "mps") else Alone(clock),
            _Stepwise(longest) if longest else Engine(Limits(256, 2048, 40_000)),
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
    """Counts no more than so many iterations at once."""

    def __init__(self, longest: int) -> None:
        super().__init__(Limits(256, 2048, 40_000))
        self._longest = longest

    def begin(self, now_s: float) -> Work | None:
        """The next iterations, cut short."""
        work = super().begin(now_s)
        if work is not None:
            work.steps = min(work.steps, self._longest)
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
