"""The published tables that the simulated GPU must reproduce, and the same experiment simulated.

The tables are facts of others, each with its source, and are not part of the project: they are read
where they lie. Which rows were fitted is written in ``virtual-gpu-split.yaml`` and was fixed first.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from fairshare.devices.constants import gpu_spec
from fairshare.virtual.clock import Clock
from fairshare.virtual.contention import Alone, Contended, Partition, TimeSlices
from fairshare.virtual.course import Lane
from fairshare.virtual.deployed import GpuFigures
from fairshare.virtual.engine import Engine, Limits, Sequence
from fairshare.virtual.models import virtual_model
from fairshare.virtual.physics import Constants, Costs, drawable_bandwidth
from fairshare.virtual.prefixes import BLOCK_TOKENS
from fairshare.virtual.rules import MpsClient, SharingKind, TimeSliced
from fairshare.virtual.simulated import Flight, SimulatedServer

TABLES = Path(__file__).parents[2] / "shared" / "data" / "published"
SPLIT = Path(__file__).with_name("virtual-gpu-split.yaml")
METRICS = ("output_tok_s_per_gpu", "ttft_p50", "itl_p50")
CONCURRENCIES = (1, 2, 4, 8, 16, 32)
PROMPT, OUTPUT, BATCHED_TOKENS, SEQUENCES = 2048, 256, 2048, 256
# Tokens of KV cache of one engine: visible memory x utilization - weights - 1.6 GB (assumed).
KV_TOKENS = {"exclusive": 179_000, "timeslice": 55_900, "mps": 49_600}

Row = tuple[str, int]
"""A mode and the requests in flight at each model."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Output tokens/s of a GPU, median TTFT and ITL (of a request, in the mean) in milliseconds."""

    tok_s: float
    ttft_ms: float
    itl_ms: float

    def over(self, other: Figures) -> Figures:
        """Relative differences from ``other``."""
        return Figures(
            self.tok_s / other.tok_s - 1,
            self.ttft_ms / other.ttft_ms - 1,
            self.itl_ms / other.itl_ms - 1,
        )


def published(dataset: str = "dynamo") -> dict[Row, Figures]:
    """NVIDIA Dynamo's rows, or those of the independent replication (TPOT stands for ITL)."""
    found: dict[Row, dict[str, float]] = {}
    with (TABLES / "dynamo_gpu_sharing.csv").open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if line["dataset"] == dataset and "eager" not in line["configuration"]:
                row = line["mode"], int(line["concurrency_per_model"])
                metric = line["metric"].replace("tpot", "itl")
                found.setdefault(row, {}).setdefault(metric, float(line["value"]))
    whole = {row: values for row, values in found.items() if set(METRICS) <= values.keys()}
    return {row: Figures(*(values[m] for m in METRICS)) for row, values in whole.items()}


def laws() -> list[dict[str, str]]:
    """Rows of single measurements: a vision model shared in several ways, decode against SMs."""
    with (TABLES / "gpu_sharing.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def splits() -> dict[str, list[Row]]:
    """The rows that are fitted in each split; all others are held out."""
    text = yaml.safe_load(SPLIT.read_text(encoding="utf-8"))
    return {
        name: [(mode, c) for mode, numbers in rows.items() for c in numbers]
        for name, rows in text["fitted"].items()
    }


def not_reproducible() -> dict[Row, str]:
    """Rows of which a figure cannot be reproduced, and why."""
    text = yaml.safe_load(SPLIT.read_text(encoding="utf-8"))
    return {(each["mode"], each["concurrency"]): each["why"].strip() for each in text["warm"]}


def other_reasons() -> list[str]:
    """What else cannot be reproduced, in sentences."""
    reasons: list[str] = yaml.safe_load(SPLIT.read_text(encoding="utf-8"))["other_reasons"]
    return reasons


def simulated(constants: Constants) -> dict[Row, Figures]:
    """All rows of the experiment, the points of each mode in order, as they were measured."""
    return {
        (mode, concurrency): figures
        for mode in KV_TOKENS
        for concurrency, figures in _sweep(mode, constants)
    }


def _sweep(mode: str, constants: Constants) -> Iterator[tuple[int, Figures]]:
    """One mode: engines that go on from point to point, and so keep their prefix caches."""
    clock = Clock()
    servers = _servers(mode, clock, constants)
    for concurrency in CONCURRENCIES:
        count = max(40, 10 * concurrency)  # 680 in all, as the page says
        start_s, done = clock.now_s, list[Flight]()
        for number, server in enumerate(servers):
            client = _Client(server, number, count, done)
            for _ in range(concurrency):
                client.send()
        wanted = count * len(servers)
        clock.run(until=partial(_all_done, done, wanted))
        ttft = [(f.first_token_s or 0.0) - f.sent_s for f in done]
        itl = [((f.end_s or 0.0) - (f.first_token_s or 0.0)) / (OUTPUT - 1) for f in done]
        yield (
            concurrency,
            Figures(
                wanted * OUTPUT / (clock.now_s - start_s),
                1e3 * statistics.median(ttft),
                1e3 * statistics.median(itl),
            ),
        )


def _all_done(done: list[Flight], wanted: int) -> bool:
    return len(done) == wanted


@dataclass(slots=True)
class _Client:
    """Asks one model for one prompt after the other, the same ones in the same order each time."""

    server: SimulatedServer
    number: int
    count: int
    done: list[Flight]
    asked: int = 0

    def send(self) -> None:
        if self.asked == self.count:
            return
        blocks = PROMPT // BLOCK_TOKENS
        first = (self.number * 1000 + self.asked) * blocks
        prefix = tuple(range(first, first + blocks))
        name = f"{self.number}-{self.asked}"
        self.asked += 1
        self.server.submit(Flight(Sequence(name, "", PROMPT, OUTPUT, prefix=prefix), self._ended))

    def _ended(self, flight: Flight) -> None:
        self.done.append(flight)
        self.send()


def _servers(mode: str, clock: Clock, constants: Constants) -> list[SimulatedServer]:
    costs = Costs.of(GpuFigures.of(gpu_spec("a100-40")), virtual_model("qwen3-4b"), constants)
    share = 0.5 if mode == "mps" else 1.0
    lane = Lane(costs, constants, share, drawable_bandwidth(share, constants))
    rule = MpsClient(share, constants) if mode == "mps" else TimeSliced(constants)
    makers: Mapping[str, Partition] = {
        "exclusive": Alone(clock),
        "timeslice": TimeSlices(clock, constants.timeslice_tax),
        "mps": Contended(clock, SharingKind.MPS),
    }
    return [
        SimulatedServer(
            clock,
            makers[mode],
            Engine(Limits(SEQUENCES, BATCHED_TOKENS, KV_TOKENS[mode] // BLOCK_TOKENS)),
            lane,
            rule,
            front_end_s=constants.front_end_s,
            keep_token_times=False,
        )
        for _ in range(1 if mode == "exclusive" else 2)
    ]
