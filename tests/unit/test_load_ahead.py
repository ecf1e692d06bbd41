"""Requests are ready before they are needed, in order, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from fairshare.errors import SpecError
from fairshare.load import ahead
from fairshare.load.ahead import RequestQueue
from fairshare.load.target import Target
from fairshare.spec.scenario import Api
from fairshare.spec.workload import Sampling
from fairshare.workload.requests import PlannedRequest

TARGET = Target(
    "a", "s0", "http://127.0.0.1:1", "m", Api.COMPLETIONS, True, None, True, True, Sampling(), 1, 1
)


class Plan:
    """A plan of requests that counts how many were drawn."""

    def __init__(self, count: int, fail_at: int | None = None) -> None:
        self.drawn = 0
        self._count = count
        self._fail_at = fail_at

    def __iter__(self) -> Iterator[PlannedRequest]:
        while self.drawn < self._count:
            if self.drawn == self._fail_at:
                raise SpecError("the plan broke")
            self.drawn += 1
            yield PlannedRequest(str(self.drawn), "a", None, [1], None, 1, 1)


def queue(plan: Plan, size: int) -> tuple[RequestQueue, list[Exception]]:
    """A queue of ``size`` requests ahead, and the errors it reports."""
    errors: list[Exception] = []
    return RequestQueue(TARGET, iter(plan), ahead=size, on_error=errors.append), errors


async def test_queue_gives_all_requests_in_order_and_refills_between() -> None:
    """Nothing is lost, doubled or reordered; the queue is full again once the loop is free."""
    plan = Plan(10)
    requests, _ = queue(plan, 4)
    requests.prime()
    assert plan.drawn == 4
    taken = [requests.take(), requests.take()]
    for _ in range(4):
        await asyncio.sleep(0)
    assert plan.drawn == 6
    while (request := requests.take()) is not None:
        taken.append(request)
    assert [request.id for request in taken if request] == [str(n) for n in range(1, 11)]
    assert requests.peek() is None


async def test_queue_does_not_pile_up_long_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes ahead are bounded, whatever the number of requests asked for."""
    monkeypatch.setattr(ahead, "MAX_AHEAD_BYTES", 100)
    plan = Plan(1000)
    requests, _ = queue(plan, 1000)
    requests.prime()
    assert 1 <= plan.drawn <= 2
    assert requests.take() is not None


async def test_broken_plan_is_reported_and_ends_the_queue() -> None:
    """What breaks in a callback is handed on, once, and the queue is then empty."""
    requests, errors = queue(Plan(10, fail_at=3), 2)
    requests.prime()
    taken = [requests.take() for _ in range(5)]
    await asyncio.sleep(0)
    assert [request.id if request else None for request in taken] == ["1", "2", "3", None, None]
    assert [str(error) for error in errors] == ["the plan broke"]


def test_priming_raises_what_is_wrong_at_once() -> None:
    """Before the start an error is an error."""
    requests, errors = queue(Plan(10, fail_at=1), 4)
    with pytest.raises(SpecError, match="the plan broke"):
        requests.prime()
    assert errors == []
