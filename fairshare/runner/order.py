"""In which order repetitions, deployments and cells are run, so that drift favours none."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from fairshare.spec.choices import Order

T = TypeVar("T")
Arrangement = Callable[[Sequence[T]], list[T]]


def arrangement(order: Order, seed: int, repetition: int) -> Arrangement[T]:
    """How one round is arranged: its deployments, and with another call the cells of each.

    Repetitions count from 1. Every second round runs backwards, unless the order is random; that
    follows from ``seed`` and the repetition alone, so a resumed sweep goes on in the same order.
    """
    if order is Order.RANDOM:
        source = random.Random(f"{seed} {repetition}")  # noqa: S311  (an order is no secret)
        return lambda items: source.sample(list(items), len(items))
    if repetition % 2:
        return list
    return lambda items: list(reversed(items))
