"""VTC's experiments, simulated: ``python -m benchmarks.virtual_gpu_vtc``.

The stored results of the artifact (github.com/Ying1123/VTC-artifact: Llama-2-7B on an A10G) are
read where they lie, for their requests and for what was measured. The server there admits by a rule
of its own, which this module adds to the simulated engine: only as many requests run as would fit
the cache if each used its whole output, and with it that shorter ones leave earlier; new ones are
looked at every ten decode steps.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from fairshare.analysis.arrays import columns
from fairshare.analysis.difference import service_difference
from fairshare.analysis.service import evenly_charged
from fairshare.records import Phase, RequestRecord
from fairshare.scheduling.policies import policy_for
from fairshare.scheduling.policy import SchedulingPolicy, Tenants, Terms
from fairshare.units import NS_PER_S
from fairshare.virtual.clock import Clock
from fairshare.virtual.contention import Alone
from fairshare.virtual.course import Lane
from fairshare.virtual.deployed import GpuFigures
from fairshare.virtual.engine import Engine, Limits, Sequence, Work, blocks_for
from fairshare.virtual.models import virtual_model
from fairshare.virtual.physics import PUBLISHED, Constants, Costs
from fairshare.virtual.rules import TimeSliced
from fairshare.virtual.simulated import Flight, SimulatedServer

RESULTS = Path(__file__).parents[2] / "shared" / "data" / "vtc"
A10G = GpuFigures(70e12, 600e9)
CACHE_TOKENS = 10_000  # 19 requests of 256 and 256 tokens ran at once there
STEPS_BETWEEN_BATCHES = 10
LEAST_BATCH_TOKENS = 1024  # the longest request
_OVERLOAD, _REAL = "VTC_all_results_overload", "FCFS_all_results_real"


@dataclass(frozen=True, slots=True)
class Row:
    """A published row: whose requests are played, under which policy, and what was measured.

    ``measured`` is None where the stored result tells; else the artifact's table (arXiv 2401.00588)
    has max D, mean D, tokens per second and requests that were answered.
    """

    name: str
    policy: str
    requests: str
    options: Mapping[str, Any] = field(default_factory=dict)
    measured: tuple[float, float, float, int] | None = None


_HALF_WRONG = {"prediction": "oracle", "error_fraction": 0.5}
SUITES = {
    "overload": (
        Row("FCFS", "fcfs", "FCFS_all_results_overload"),
        Row("VTC", "vtc", _OVERLOAD),
        Row("VTC, 50 % error", "vtc", _OVERLOAD, _HALF_WRONG, (33.98, 12.54, 904, 1620)),
        Row("VTC, oracle", "vtc", _OVERLOAD, {"prediction": "oracle"}, (5.87, 0.51, 895, 1620)),
    ),
    "real": (
        Row("FCFS", "fcfs", _REAL),
        Row("LCF", "lcf", "LCF_all_results_real"),
        Row("VTC", "vtc", "VTC_all_results_real"),
        Row("VTC, predict", "vtc", _REAL, {"prediction": "average"}, (365.47, 240.33, 773, 1500)),
        Row("VTC, oracle", "vtc", _REAL, {"prediction": "oracle"}, (329.46, 227.51, 781, 1500)),
        Row("RPM(5)", "rpm", _REAL, {"limit": 5}, (143.86, 83.58, 340, 581)),
        Row("RPM(20)", "rpm", _REAL, {"limit": 20}, (446.76, 195.71, 694, 1158)),
        Row("RPM(30)", "rpm", _REAL, {"limit": 30}, (693.66, 309.45, 747, 1324)),
    ),
}
_WINDOW_S = (0.0, 600.0)
_NEARLY = tuple(step / 400 for step in range(-4, 5))  # within 1 %
_FIGURES = ("d_max", "d_mean", "tokens_per_s")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Largest and mean service difference, tokens (prompts too) per second, requests answered."""

    d_max: float
    d_mean: float
    tokens_per_s: float
    answered: float


class FitsWhenDone(Engine):
    """Admits by the artifact's rule."""

    def __init__(self, policy: SchedulingPolicy) -> None:
        super().__init__(Limits(1000, 100_000, 100_000), policy)
        self._looked = -STEPS_BETWEEN_BATCHES

    def begin(self, now_s: float) -> Work | None:
        """The next iterations, not beyond the next look at those that wait."""
        work = super().begin(now_s)
        if work is not None and self.waiting:
            work.steps = min(
                work.steps, max(1, STEPS_BETWEEN_BATCHES - (self.steps - self._looked))
            )
        return work

    def _admit(self, budget: int, now_s: float) -> None:
        if self.running and self.steps - self._looked < STEPS_BETWEEN_BATCHES:
            return
        self._looked = self.steps
        room = max(CACHE_TOKENS / 6, LEAST_BATCH_TOKENS)
        running = [
            (s.max_output_tokens - self.produced(s) - 1, s.prompt_tokens + self.produced(s))
            for s in self.running
        ]
        while (head := self.policy.head(now_s)) is not None:
            sequence = self._waiting[head]
            room -= sequence.prompt_tokens
            running.append((sequence.max_output_tokens - 1, sequence.prompt_tokens + 1))
            if room < 0 or most_needed(running) >= CACHE_TOKENS:
                return
            self.policy.admit(sequence, now_s)
            del self._waiting[sequence]
            sequence.blocks = blocks_for(sequence.tokens)
            self._take(sequence.blocks)
            self._start(sequence, budget)


def most_needed(running: Iterable[tuple[int, int]]) -> int:
    """Tokens of cache at the worst moment, of requests with (left, used) tokens."""
    most = used_so_far = 0
    for count, (left, used) in enumerate(sorted(running, reverse=True), start=1):
        used_so_far += used
        most = max(most, used_so_far + count * left)
    return most


def stored(name: str) -> list[dict[str, Any]]:
    """The requests of a stored result that were answered, in the order of sending."""
    with (RESULTS / f"{name}.jsonl").open("rb") as file:
        responses = orjson.loads(file.readline())["result"]["responses"]
    answered = [each for each in responses if each["request_latency"] >= 0]
    return sorted(answered, key=lambda each: float(each["req_time"]))


def published(row: Row) -> Outcome:
    """What was measured."""
    if row.measured is not None:
        return Outcome(*row.measured)
    return _outcome(
        _record(
            str(number),
            each["adapter_dir"],
            (each["prompt_len"], each["output_len"]),
            tuple(
                each["req_time"] + after_s
                for after_s in (0.0, each["first_token_latency"], each["request_latency"])
            ),
        )
        for number, each in enumerate(stored(row.requests))
    )


def simulated(row: Row, constants: Constants) -> Outcome:
    """The same requests under the policy."""
    return _outcome(played(row, constants))


def played(
    row: Row, constants: Constants, tenants: Tenants | None = None
) -> Iterator[RequestRecord]:
    """The requests that the policy lets in, answered in virtual time."""
    clock = Clock()
    costs = Costs.of(A10G, virtual_model("llama-2-7b"), constants)
    server = SimulatedServer(
        clock, Alone(clock), FitsWhenDone(policy_for(row.policy, row.options, tenants)),
        Lane(costs, constants), TimeSliced(constants), front_end_s=0.0, keep_token_times=False,
    )  # fmt: skip
    done: list[Flight] = []
    for number, each in enumerate(stored(row.requests)):
        output = each["output_len"]
        sequence = Sequence(
            str(number), each["adapter_dir"], each["prompt_len"], output, output_tokens=output
        )
        clock.at(each["req_time"], server.submit, Flight(sequence, done.append))
    clock.run(until=lambda: False)
    for f in done:
        if f.refusal is None:
            yield _record(
                f.sequence.id,
                f.sequence.tenant,
                (f.sequence.prompt_tokens, f.sequence.max_output_tokens),
                (f.sent_s, f.first_token_s or 0.0, f.end_s or 0.0),
            )


def typical(row: Row, by: float) -> Outcome:
    """The mean of runs on devices nearly as fast: which requests meet in a batch is chance."""
    runs = [simulated(row, scaled(by * (1 + off))) for off in _NEARLY]
    return Outcome(*(statistics.mean(values) for values in zip(*map(astuple, runs), strict=True)))


def fitted(suite: str) -> float:
    """A factor on all speeds, with which the schedulers take as long as they did, on average.

    One for each suite: a batch there is of 2 clients' LoRA adapters, or of up to 27. Those that
    limit rates say little of the speed and count like any other.
    """
    rows = SUITES[suite]
    low, high = 0.5, 1.5
    while high - low > 1e-3:
        middle = (low + high) / 2
        faster = [
            simulated(row, scaled(middle)).tokens_per_s / published(row).tokens_per_s
            for row in rows
        ]
        low, high = (low, middle) if math.prod(faster) > 1 else (middle, high)
    return (low + high) / 2


def scaled(by: float) -> Constants:
    """A device that is faster than the published constants by a factor."""
    return replace(
        PUBLISHED,
        compute_efficiency=PUBLISHED.compute_efficiency * by,
        memory_efficiency=PUBLISHED.memory_efficiency * by,
        layer_latency_s=PUBLISHED.layer_latency_s / by,
    )


def misplaced(rows: Collection[Row], was: list[Outcome], now: list[Outcome]) -> list[str]:
    """Pairs of rows that were more than 5 % apart and come in another order, by figure."""
    found = []
    names = [row.name for row in rows]
    for figure, (i, j) in product(_FIGURES, combinations(range(len(was)), 2)):
        before = getattr(was[i], figure) / getattr(was[j], figure)
        after = getattr(now[i], figure) / getattr(now[j], figure)
        if not 1 / 1.05 <= before <= 1.05 and (before > 1) != (after > 1):
            pair = f"{names[i]} over {names[j]}"
            found.append(f"{figure}, {pair}: {before:.2f} published, {after:.2f} here")
    return found


def weighted_shares(constants: Constants) -> list[float]:
    """Service of four clients of weights 1 to 4 from 60 to 330 s, over that of the first."""
    names = [f"dummy-lora-7b-rank-8-{number}" for number in range(4)]
    terms = {name: Terms(weight=number) for number, name in enumerate(names, start=1)}
    row = Row("", "vtc", "WVTC_all_results_overload-weighted")
    records = columns(played(row, constants, Tenants(terms)), names)
    _, flow = evenly_charged(records)
    service = flow.by_tenant(np.array([60.0, 330.0]), len(names))[:, 0]
    return [float(each / service[0]) for each in service]


def _record(
    name: str,
    tenant: str,
    tokens: tuple[int, int],
    times_s: tuple[float, ...],
) -> RequestRecord:
    """A request with its prompt and output tokens; when it was sent, began to answer and ended."""
    sent, first, end = (round(time_s * NS_PER_S) for time_s in times_s)
    prompt, output = tokens
    return RequestRecord(
        name, tenant, "all", Phase.MEASURE, sent, sent_ns=sent, headers_ns=first,
        first_token_ns=first, chunk_ns=[first], chunk_tokens=[output], end_ns=end,
        prompt_tokens=prompt, cached_tokens=0, output_tokens=output,
        finish_reason="length", status=200,
    )  # fmt: skip


def _outcome(records: Iterable[RequestRecord]) -> Outcome:
    kept = list(records)
    tenants = tuple(sorted({record.tenant for record in kept}))
    _, found = service_difference(
        columns(iter(kept), tenants), _WINDOW_S, np.ones(len(tenants), dtype=np.float64)
    )
    tokens = sum((r.prompt_tokens or 0) + (r.output_tokens or 0) for r in kept)
    end_s = max(r.end_ns or 0 for r in kept) / NS_PER_S
    return Outcome(float(found.max()), statistics.mean(found.tolist()), tokens / end_s, len(kept))


def main() -> None:
    """Print every row, published beside simulated, and what comes in another order."""
    print("| suite | scheduler | max D | mean D | tok/s | answered |\n|" + " --- |" * 6)
    wrong = []
    speeds = {suite: fitted(suite) for suite in SUITES}
    for suite, rows in SUITES.items():
        was = [published(row) for row in rows]
        now = [typical(row, speeds[suite]) for row in rows]
        for row, there, here in zip(rows, was, now, strict=True):
            shown = " | ".join(_both(there, here, figure) for figure in _FIGURES)
            print(f"| {suite} | {row.name} | {shown} | {there.answered} / {here.answered:.0f} |")
        wrong += [f"{suite}, {each}" for each in misplaced(rows, was, now)]
    print("\nfitted: " + ", ".join(f"{suite} {by:.3f}" for suite, by in speeds.items()))
    shares = weighted_shares(scaled(speeds["overload"]))
    print("overload-weighted: " + " : ".join(f"{each:.3f}" for each in shares))
    print("\n".join(wrong or ["no two rows come in another order"]))


def _both(was: Outcome, now: Outcome, figure: str) -> str:
    before, after = getattr(was, figure), getattr(now, figure)
    digits = 0 if before > 100 else 1
    return f"{before:.{digits}f} / {after:.{digits}f} ({100 * (after / before - 1):+.0f} %)"


if __name__ == "__main__":
    main()
