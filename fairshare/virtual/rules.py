"""How engines that share a partition of the device slow each other down.

A partition is the whole GPU or one MIG instance; instances do not interact. Inside it a process
is either time-sliced by the driver or a client of an MPS daemon. Each rule turns the demand of
one step, and what the neighbours are doing as it starts, into the step's duration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from fairshare.virtual.physics import PUBLISHED, Constants, Demand, drawable_bandwidth, work_s


class SharingKind(StrEnum):
    """By what means a process shares its partition."""

    TIMESLICE = "timeslice"
    MPS = "mps"


@dataclass(frozen=True, slots=True)
class Partition:
    """A fraction of the device's SMs and memory bandwidth that is ours alone."""

    sm_share: float = 1.0
    bandwidth_share: float = 1.0

    def scaled(self, demand: Demand) -> Demand:
        """``demand`` in seconds of this partition instead of the whole device."""
        return Demand(
            compute_s=demand.compute_s / self.sm_share,
            memory_s=demand.memory_s / self.bandwidth_share,
            latency_s=demand.latency_s,
            host_s=demand.host_s,
            attention_compute_s=demand.attention_compute_s / self.sm_share,
            attention_memory_s=demand.attention_memory_s / self.bandwidth_share,
        )


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another process with work in the same partition, as of now.

    ``demand`` is in seconds of the partition, ``step_s`` how long its step takes in fact, and
    ``sm_share`` its MPS thread percentage as a fraction.
    """

    kind: SharingKind
    demand: Demand
    step_s: float
    sm_share: float = 1.0


class Rule(Protocol):
    """A way of sharing a partition."""

    def step_s(self, demand: Demand, neighbours: Sequence[Neighbour]) -> float:
        """Duration of a step of ``demand`` (seconds of the partition) beside ``neighbours``."""
        ...


@dataclass(frozen=True, slots=True)
class TimeSliced:
    """The driver's time slices: everybody with work progresses at ``1/(n * tau)``.

    The latency part is serialised too, since the context stays resident. All MPS clients of the
    partition take turns as one. A process that its own host holds up leaves time to the others;
    one process alone pays nothing.
    """

    constants: Constants = PUBLISHED

    def step_s(self, demand: Demand, neighbours: Sequence[Neighbour]) -> float:
        """Duration of the step; ``n * tau`` times the lone one when all are GPU-bound."""
        alone = _alone_s(demand, 1.0, self.constants)
        turns = [n for n in neighbours if n.kind is SharingKind.TIMESLICE]
        needs = [_need(n.demand, self.constants) for n in turns]
        if len(turns) < len(neighbours):
            needs.append(1.0)
        if not needs or alone == 0:
            return max(alone, demand.host_s)
        own_need = min(1.0, alone / max(alone, demand.host_s))
        time_share = water_fill(own_need, needs, 1 / self.constants.timeslice_tax)
        return max(alone / time_share, demand.host_s)


@dataclass(frozen=True, slots=True)
class MpsClient:
    """Concurrent kernels under MPS, on at most ``sm_share`` of the SMs.

    Shares that sum to 1 or less are partitions of the SMs which contend for bandwidth only;
    beyond that the SMs are split in proportion and all pay a tax.
    """

    sm_share: float = 1.0
    constants: Constants = PUBLISHED

    def step_s(self, demand: Demand, neighbours: Sequence[Neighbour]) -> float:
        """Duration of the step. Unequal shares are not validated by any published data."""
        clients = [n for n in neighbours if n.kind is SharingKind.MPS]
        total_share = self.sm_share + sum(n.sm_share for n in clients)
        crowded = bool(clients) and total_share > 1 + 1e-9
        scale = 1 / total_share if crowded else 1.0
        own_share = self.sm_share * scale
        drawable = drawable_bandwidth(own_share, self.constants)
        work = work_s(demand, own_share, drawable, self.constants)
        draws = [_draw(n, n.sm_share * scale, self.constants) for n in clients]
        progress = _progress(demand.moving_s / work if work else 0.0, draws)
        step = demand.latency_s + work / progress
        if crowded:
            step *= self.constants.oversubscription
        outsiders = len(neighbours) - len(clients)
        if outsiders:
            step *= (1 + outsiders) * self.constants.timeslice_tax
        return max(step, demand.host_s)


def water_fill(own: float, others: Sequence[float], capacity: float) -> float:
    """What ``own`` gets when demands that exceed ``capacity`` are cut to one common level."""
    left = capacity
    remaining = sorted([own, *others])
    while remaining:
        level = left / len(remaining)
        if remaining[0] > level:
            return min(own, level)
        if own <= remaining[0]:
            return own
        left -= remaining.pop(0)
    return own


def _alone_s(demand: Demand, share: float, constants: Constants) -> float:
    return demand.latency_s + work_s(demand, share, drawable_bandwidth(share, constants), constants)


def _need(demand: Demand, constants: Constants) -> float:
    """Fraction of the device's time that an engine takes when it is alone."""
    alone = _alone_s(demand, 1.0, constants)
    return alone / max(alone, demand.host_s) if alone else 0.0


def _draw(client: Neighbour, sm_share: float, constants: Constants) -> tuple[float, float]:
    """How often a neighbour is in its work part, and its bandwidth draw there at full speed."""
    if client.step_s <= 0:
        return 0.0, 0.0
    work = work_s(client.demand, sm_share, drawable_bandwidth(sm_share, constants), constants)
    busy = max(0.0, 1 - client.demand.latency_s / client.step_s)
    return busy, client.demand.moving_s / work if work else 0.0


def _progress(own_draw: float, draws: Sequence[tuple[float, float]]) -> float:
    """Mean speed of our work part while neighbours come and go between latency and work.

    ``own_draw`` is the fraction of the bandwidth that we draw at full speed. A neighbour draws
    only in its work part, so how many draw at once is a random variable: its distribution is exact
    for independent phases, and each is given the neighbours' mean draw (exact for one neighbour
    and for equal ones).
    """
    if not draws or own_draw == 0:
        return 1.0
    mean_draw = sum(draw for _, draw in draws) / len(draws)
    return sum(
        # Water-filling among equal others: who wants less than an equal part leaves the rest.
        probability * min(1.0, max(1 / (count + 1), 1 - count * mean_draw) / own_draw)
        for count, probability in enumerate(_how_many([busy for busy, _ in draws]))
    )


def _how_many(probabilities: Sequence[float]) -> list[float]:
    """Distribution of how many of independent events happen."""
    distribution = [1.0]
    for p in probabilities:
        distribution = [
            fewer * (1 - p) + more * p
            for fewer, more in zip([*distribution, 0.0], [0.0, *distribution], strict=True)
        ]
    return distribution
