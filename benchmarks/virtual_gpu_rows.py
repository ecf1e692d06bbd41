"""The published tables that the simulated GPU must reproduce, and the same experiment simulated.

The tables are facts of others, each with its source, and are not part of the project: they are read
where they lie. Which rows were fitted is written in ``virtual-gpu-split.yaml`` and was fixed first.
"""

from __future__ import annotations

import csv
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path

import yaml

from fairshare.devices.constants import gpu_spec
from fairshare.virtual.clock import Clock
from fairshare.virtual.contention import Alone, MpsClients, Partition, TimeSlices
from fairshare.virtual.course import Lane
from fairshare.virtual.deployed import GpuFigures
from fairshare.virtual.engine import Engine, Limits
from fairshare.virtual.engine import Sequence as Request
from fairshare.virtual.front_end import SCATTER
from fairshare.virtual.models import virtual_model
from fairshare.virtual.physics import Constants, Costs, drawable_bandwidth
from fairshare.virtual.prefixes import BLOCK_TOKENS
from fairshare.virtual.rules import MpsClient, TimeSliced
from fairshare.virtual.simulated import Flight, SimulatedServer

TABLES = Path(__file__).parents[2] / "shared" / "data" / "published"
SPLIT = Path(__file__).with_name("virtual-gpu-split.yaml")
METRICS = ("output_tok_s_per_gpu", "ttft_p50", "itl_p50")
CONCURRENCIES = (1, 2, 4, 8, 16, 32)
PROMPT, OUTPUT, BATCHED_TOKENS, SEQUENCES = 2048, 256, 2048, 256
# Tokens of KV cache of one engine: visible memory x utilization - weights - 1.6 GB (assumed).
KV_TOKENS = {"exclusive": 179_000, "timeslice": 55_900, "mps": 49_600}

YOLOS_ALONE_S = 0.088
RUNS = 4  # of the experiment, with other chances; figures are their means

Row = tuple[str, int]
"""A mode and the requests in flight at each model."""

ROWS: tuple[Row, ...] = tuple((mode, c) for mode in KV_TOKENS for c in CONCURRENCIES)


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


def shared_by(pods: int) -> float:
    """What time slices cost so many pods of a vision model, over as many times one alone."""
    times = {
        row["requests_per_gpu"]: float(row["value"])
        for row in laws()
        if row["model"] == "YOLOS-small" and row["mode"] in ("timeslice", "exclusive")
    }
    return times[str(pods)] / (pods * YOLOS_ALONE_S)


def splits() -> dict[str, list[Row]]:
    """The rows that are fitted in each split; all others are held out."""
    text = yaml.safe_load(SPLIT.read_text(encoding="utf-8"))
    return {
        name: [(mode, c) for mode, numbers in rows.items() for c in numbers]
        for name, rows in text["fitted"].items()
    }


def warm() -> dict[Row, str]:
    """Rows that were measured on a prefix cache with some of the prompts in it, and the signs."""
    text = yaml.safe_load(SPLIT.read_text(encoding="utf-8"))
    return {(each["mode"], each["concurrency"]): each["why"].strip() for each in text["warm"]}


def undetermined() -> set[Row]:
    """Those of them whose median TTFT lies between two modes: nothing can be fitted to it."""
    text = yaml.safe_load(SPLIT.read_text(encoding="utf-8"))
    return {(w["mode"], w["concurrency"]) for w in text["warm"] if w.get("half")}


def other_reasons() -> list[str]:
    """What else cannot be reproduced, in sentences."""
    reasons: list[str] = yaml.safe_load(SPLIT.read_text(encoding="utf-8"))["other_reasons"]
    return reasons


def simulated(
    constants: Constants, scatter: float = SCATTER, chances: Sequence[int] = range(RUNS)
) -> dict[Row, Figures]:
    """All rows of the experiment, the points of each mode in order, as they were measured.

    Means of as many runs as there are seeds in ``chances``.
    """
    runs = [
        {
            (mode, concurrency): figures
            for mode in KV_TOKENS
            for concurrency, figures in _sweep(mode, constants, _Chance(run, scatter))
        }
        for run in chances
    ]
    return {row: _mean([run[row] for run in runs]) for row in ROWS}


class _Chance:
    """How long a request is in the front end, over the mean."""

    def __init__(self, seed: int, scatter: float) -> None:
        self._random = random.Random(seed)
        self._between = (1 - scatter, 1 + scatter)

    def passing(self) -> float:
        return self._random.uniform(*self._between)


def _mean(figures: list[Figures]) -> Figures:
    return Figures(
        *(statistics.mean(values) for values in zip(*map(astuple, figures), strict=True))
    )


def _sweep(mode: str, constants: Constants, chance: _Chance) -> Iterator[tuple[int, Figures]]:
    """One mode: engines that go on from point to point, and so keep their prefix caches."""
    clock = Clock()
    servers = _servers(mode, clock, constants)
    for concurrency in CONCURRENCIES:
        count = max(40, 10 * concurrency)  # 680 in all, as the page says
        start_s, done = clock.now_s, list[_Answered]()
        for number, server in enumerate(servers):
            client = _Client(clock, server, number, count, done, constants.front_end_s, chance)
            for _ in range(concurrency):
                client.send()
        wanted = count * len(servers)
        clock.run(until=partial(_all_done, done, wanted))
        ttft = [answered.ttft_s for answered in done]
        itl = [answered.decoding_s / (OUTPUT - 1) for answered in done]
        yield (
            concurrency,
            Figures(
                wanted * OUTPUT / (clock.now_s - start_s),
                1e3 * statistics.median(ttft),
                1e3 * statistics.median(itl),
            ),
        )


def _all_done(done: list[_Answered], wanted: int) -> bool:
    return len(done) == wanted


@dataclass(frozen=True, slots=True)
class _Answered:
    """Seconds from a request to its first token, and from there to its last."""

    ttft_s: float
    decoding_s: float


@dataclass(slots=True)
class _Client:
    """Asks one model for one prompt after the other, the same ones in the same order each time.

    What passes before a request is at the engine is the client's business here.
    """

    clock: Clock
    server: SimulatedServer
    number: int
    count: int
    done: list[_Answered]
    front_end_s: float
    chance: _Chance
    asked: int = 0

    def send(self) -> None:
        if self.asked == self.count:
            return
        blocks = PROMPT // BLOCK_TOKENS
        first = (self.number * 1000 + self.asked) * blocks
        prefix = tuple(range(first, first + blocks))
        name = f"{self.number}-{self.asked}"
        self.asked += 1
        begun_s = self.clock.now_s
        passes_s = self.front_end_s * self.chance.passing()
        sequence = Request(name, "", PROMPT, OUTPUT, prefix=prefix)
        flight = Flight(sequence, partial(self._ended, begun_s))
        self.clock.at(begun_s + passes_s, self.server.submit, flight)

    def _ended(self, begun_s: float, flight: Flight) -> None:
        assert flight.first_token_s is not None and flight.end_s is not None
        self.done.append(
            _Answered(flight.first_token_s - begun_s, flight.end_s - flight.first_token_s)
        )
        self.send()


def _servers(mode: str, clock: Clock, constants: Constants) -> list[SimulatedServer]:
    costs = Costs.of(GpuFigures.of(gpu_spec("a100-40")), virtual_model("qwen3-4b"), constants)
    share = 0.5 if mode == "mps" else 1.0
    lane = Lane(costs, constants, share, drawable_bandwidth(share, constants))
    rule = MpsClient(share, constants) if mode == "mps" else TimeSliced(constants)
    makers: Mapping[str, Partition] = {
        "exclusive": Alone(clock),
        "timeslice": TimeSlices(clock, constants.timeslice_tax),
        "mps": MpsClients(clock, constants),
    }
    return [
        SimulatedServer(
            clock,
            makers[mode],
            Engine(Limits(SEQUENCES, BATCHED_TOKENS, KV_TOKENS[mode] // BLOCK_TOKENS)),
            lane,
            rule,
            front_end_s=0.0,
            keep_token_times=False,
        )
        for _ in range(1 if mode == "exclusive" else 2)
    ]
