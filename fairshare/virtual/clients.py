"""How fast the clients of one MPS daemon get on beside each other, all of them found at once.

The formulas are those of :class:`fairshare.virtual.rules.MpsClient`, which asks for one client what
the others do; here the distribution of how many of them draw bandwidth at the same moment is made
once for all, and each client is taken out of it, so that the cost grows with the square of their
number and not with its third power.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fairshare.virtual.physics import PUBLISHED, Constants, Demand, drawable_bandwidth, work_s


@dataclass(slots=True)
class Client:
    """What a client's steps are like on its share of the SMs, in seconds.

    ``draw`` is the part of the device's bandwidth that its ``work_s`` takes at full speed, ``busy``
    how much of its time it is in that work and not in the latencies between.
    """

    latency_s: float
    host_s: float
    work_s: float
    draw: float
    busy: float

    @classmethod
    def of(cls, demand: Demand, sm_share: float, constants: Constants = PUBLISHED) -> Client:
        """A client with these demands on a share of the SMs; as busy as it would be alone."""
        work = work_s(demand, sm_share, drawable_bandwidth(sm_share, constants), constants)
        alone_s = max(demand.latency_s + work, demand.host_s)
        return cls(
            demand.latency_s,
            demand.host_s,
            work,
            demand.moving_s / work if work else 0.0,
            1 - demand.latency_s / alone_s if alone_s else 0.0,
        )


def step_times(clients: Sequence[Client], tax: float = 1.0) -> list[float]:
    """How long a step of each takes beside the others; updates how busy each is.

    ``tax`` is what all pay where the shares add up to more than the device. How busy they are
    depends on each other's steps: asked again and again, the times settle.
    """
    others = len(clients) - 1
    chances = _how_many(clients)
    draws = sum([client.draw for client in clients])
    steps = []
    for client in clients:
        step_s = client.latency_s + client.work_s
        # Who asks for less than an equal part of the bandwidth always gets it.
        if others and client.draw * (others + 1) > 1:
            speed = _speed(chances, client, (draws - client.draw) / others)
            step_s = client.latency_s + client.work_s / speed
        steps.append(max(step_s * tax, client.host_s))
    for client, step_s in zip(clients, steps, strict=True):
        client.busy = 1 - client.latency_s / step_s if step_s > client.latency_s else 0.0
    return steps


def _how_many(clients: Sequence[Client]) -> list[float]:
    """Chances that 0, 1, 2, ... of them are in their work, as if their phases were independent."""
    chances = [1.0]
    for client in clients:
        p = client.busy
        q = 1 - p
        before = 0.0
        for number, chance in enumerate(chances):
            chances[number] = chance * q + before * p
            before = chance
        chances.append(before * p)
    return chances


def _speed(chances: Sequence[float], client: Client, mean_draw: float) -> float:
    """Mean speed of a client's work, while each of the others in theirs draws ``mean_draw``.

    Water-filling among equal others: who wants less than an equal part leaves the rest. The client
    itself is taken out of ``chances``, from the side on which errors do not grow.
    """
    p, draw = client.busy, client.draw
    q = 1 - p
    if p > q:
        chances = _without(chances, p)
        p, q = 0.0, 1.0
    sure = slowed = chance = 0.0
    rest = 1.0
    for number, all_of_them in enumerate(chances[: -1 if p else None], start=1):
        chance = (all_of_them - chance * p) / q
        granted = rest if rest * number > 1 else 1 / number
        if granted >= draw:
            sure += chance
        else:
            slowed += chance * granted
        rest -= mean_draw
    return sure + slowed / draw


def _without(chances: Sequence[float], p: float) -> list[float]:
    """The chances without one that is in its work with a chance that is not small."""
    q = 1 - p
    left = []
    before = 0.0
    for chance in chances[:0:-1]:
        before = (chance - before * q) / p
        left.append(before)
    left.reverse()
    return left
