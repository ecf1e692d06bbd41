"""Rates that change with time, piece by piece, and the arrivals that follow them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import inf, sqrt


@dataclass(frozen=True, slots=True)
class Piece:
    """A rate that runs linearly from ``from_per_s`` at ``start_s`` to ``to_per_s`` at ``end_s``.

    A piece without an end has one rate.
    """

    start_s: float
    end_s: float
    from_per_s: float
    to_per_s: float

    @property
    def due(self) -> float:
        """Requests due within the piece."""
        if self.from_per_s == self.to_per_s == 0:
            return 0.0
        return (self.from_per_s + self.to_per_s) / 2 * (self.end_s - self.start_s)

    def time_of(self, due: float) -> float:
        """When ``due`` requests of the piece are due; it is less than the whole piece's."""
        a, b = self.from_per_s, self.to_per_s
        if a == b:
            return self.start_s + due / a
        # The root of (b-a)/(2w) u^2 + a u - due = 0, in the form that survives b close to a.
        slope = (b - a) / (self.end_s - self.start_s)
        return self.start_s + 2 * due / (a + sqrt(max(0.0, a * a + 2 * slope * due)))


def ramp(from_per_s: float, to_per_s: float, start_s: float, width_s: float) -> Iterator[Piece]:
    """One rate until ``start_s``, then linearly to the other in ``width_s``, which stays."""
    end_s = start_s + width_s
    yield Piece(0.0, start_s, from_per_s, from_per_s)
    if width_s > 0:
        yield Piece(start_s, end_s, from_per_s, to_per_s)
    yield Piece(end_s, inf, to_per_s, to_per_s)


def steps(rates_per_s: Sequence[float], start_s: float, each_s: float) -> Iterator[Piece]:
    """Each rate for ``each_s``, the first from the beginning on, the last without end."""
    edges = [0.0, *(start_s + (k + 1) * each_s for k in range(len(rates_per_s) - 1)), inf]
    for k, rate in enumerate(rates_per_s):
        yield Piece(edges[k], edges[k + 1], rate, rate)


def on_off(per_s: float, start_s: float, on_s: float, off_s: float) -> Iterator[Piece]:
    """On from the beginning to ``start_s + on_s``, then off and on in turn, without end."""
    yield Piece(0.0, start_s + on_s, per_s, per_s)
    for k in count(1):
        on_again_s = start_s + k * (on_s + off_s)
        yield Piece(on_again_s, on_again_s + on_s, per_s, per_s)


def through(
    pieces: Iterator[Piece], units: Iterator[float], *, scale: float, end_s: float
) -> Iterator[float]:
    """Times below ``end_s`` at which the summed rate, times ``scale``, reaches the ``units``."""
    piece = next(pieces)
    due_before = 0.0
    for unit in units:
        due = unit / scale
        while due - due_before >= piece.due:
            due_before += piece.due
            following = next(pieces, None)
            if following is None or following.start_s >= end_s:
                return
            piece = following
        time_s = piece.time_of(due - due_before)
        if time_s >= end_s:
            return
        yield time_s
