"""Interactions: which call of which interaction a request is, and whom it waits for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fairshare.spec.workload import Interaction
from fairshare.workload.traces import Due


@dataclass(frozen=True, slots=True)
class Turn:
    """A request's place: call number ``call`` (from 1) of the ``calls`` of an interaction.

    A call after the first is due ``think_s`` after the answer to the one before, and not before its
    own intended time. Requests that belong to an app but to no interaction have no numbers.
    """

    app: str | None = None
    interaction: str | None = None
    call: int | None = None
    calls: int | None = None
    think_s: float = 0.0


Moment = tuple[float | None, Turn | None]
"""When a request is meant to be sent (None: when its client is free), and its turn."""


def call_counts(interaction: Interaction, rng: np.random.Generator) -> Iterator[int]:
    """The numbers of calls of one interaction after the other, without end."""
    high = interaction.max_calls or interaction.calls
    while True:
        yield from rng.integers(interaction.calls, high + 1, 256).tolist()


def chained(
    tenant: str, times: Iterator[float | None], interaction: Interaction, counts: Iterator[int]
) -> Iterator[Moment]:
    """Each arrival is an interaction: its calls have the same intended time, and wait in turn."""
    for number, (time_s, calls) in enumerate(zip(times, counts, strict=False)):
        for call in range(1, calls + 1):
            turn = Turn(
                app=interaction.app,
                interaction=f"{tenant}-i{number:06d}",
                call=call,
                calls=calls,
                think_s=interaction.think_time_s if call > 1 else 0.0,
            )
            yield time_s, turn


def replayed(due: Sequence[Due], think_s: float) -> Iterator[Moment]:
    """The turns of a trace's requests, in order of time.

    Calls are counted in the part that is played: an interaction that it cuts is a shorter one.
    """
    calls = Counter(one.row.interaction for one in due)
    so_far: Counter[str | None] = Counter()
    for one in due:
        row = one.row
        turn = None
        if row.interaction is not None:
            so_far[row.interaction] += 1
            call = so_far[row.interaction]
            turn = Turn(
                row.app, row.interaction, call, calls[row.interaction], think_s if call > 1 else 0.0
            )
        elif row.app is not None:
            turn = Turn(row.app)
        yield one.time_s, turn
