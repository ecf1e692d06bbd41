"""VTC's experiments, simulated: ``python -m benchmarks.virtual_gpu_vtc``.

The stored results of the artifact (github.com/Ying1123/VTC-artifact: Llama-2-7B on an A10G) are
read where they lie, for their requests and for what was measured. The server there admits by a rule
of its own, which this module adds to the simulated engine: only as many requests run as would fit
the cache if each used its whole output, and with it that shorter ones leave earlier; new ones are
looked at every ten decode steps.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from fairshare.analysis.arrays import columns
from fairshare.analysis.difference import service_difference
from fairshare.records import Phase, RequestRecord
from fairshare.scheduling.policies import policy_for
from fairshare.scheduling.policy import SchedulingPolicy
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
SUITES = {
    "overload": {"fcfs": "FCFS_all_results_overload", "vtc": "VTC_all_results_overload"},
    "real": {
        "fcfs": "FCFS_all_results_real",
        "lcf": "LCF_all_results_real",
        "vtc": "VTC_all_results_real",
    },
}
_WINDOW_S = (0.0, 600.0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Largest and mean service difference, and tokens (prompts too) per second of the whole run."""

    d_max: float
    d_mean: float
    tokens_per_s: float


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


def published(name: str) -> Outcome:
    """What was measured."""
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
        for number, each in enumerate(stored(name))
    )


def simulated(name: str, policy: str, constants: Constants) -> Outcome:
    """The same requests under a policy."""
    clock = Clock()
    costs = Costs.of(A10G, virtual_model("llama-2-7b"), constants)
    server = SimulatedServer(
        clock, Alone(clock), FitsWhenDone(policy_for(policy)), Lane(costs, constants),
        TimeSliced(constants), front_end_s=0.0, keep_token_times=False,
    )  # fmt: skip
    done: list[Flight] = []
    for number, each in enumerate(stored(name)):
        output = each["output_len"]
        sequence = Sequence(
            str(number), each["adapter_dir"], each["prompt_len"], output, output_tokens=output
        )
        clock.at(each["req_time"], server.submit, Flight(sequence, done.append))
    clock.run(until=lambda: False)
    return _outcome(
        _record(
            f.sequence.id,
            f.sequence.tenant,
            (f.sequence.prompt_tokens, f.sequence.max_output_tokens),
            (f.sent_s, f.first_token_s or 0.0, f.end_s or 0.0),
        )
        for f in done
    )


def fitted() -> Constants:
    """The constants with which the overload under FCFS takes as long as it did: one number."""
    name = SUITES["overload"]["fcfs"]
    wanted = published(name).tokens_per_s
    low, high = 0.5, 1.5
    while high - low > 1e-3:
        middle = (low + high) / 2
        faster = simulated(name, "fcfs", scaled(middle)).tokens_per_s > wanted
        low, high = (low, middle) if faster else (middle, high)
    return scaled((low + high) / 2)


def scaled(by: float) -> Constants:
    """A device that is faster than the published constants by a factor."""
    return replace(
        PUBLISHED,
        compute_efficiency=PUBLISHED.compute_efficiency * by,
        memory_efficiency=PUBLISHED.memory_efficiency * by,
        layer_latency_s=PUBLISHED.layer_latency_s / by,
    )


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
    return Outcome(float(found.max()), statistics.mean(found.tolist()), tokens / end_s)


def main() -> None:
    """Print each suite and policy, published beside simulated."""
    constants = fitted()
    print("| suite | policy | max D | mean D | tok/s |\n| --- | --- | --- | --- | --- |")
    for suite, policies in SUITES.items():
        for policy, name in policies.items():
            was, now = published(name), simulated(name, policy, constants)
            shown = " | ".join(
                f"{a:.0f} / {b:.0f} ({100 * (b / a - 1):+.0f} %)"
                for a, b in (
                    (was.d_max, now.d_max),
                    (was.d_mean, now.d_mean),
                    (was.tokens_per_s, now.tokens_per_s),
                )
            )
            print(f"| {suite} | {policy} | {shown} |")


if __name__ == "__main__":
    main()
