"""How a sweep is stopped from outside: once politely, twice at once, and always tidily."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from fairshare.runner.outcome import Outcome
from fairshare.runner.plan import RunPlan
from fairshare.runner.site import Conductor

T = TypeVar("T")


async def conduct(conductor: Conductor, plan: RunPlan, *, trial: bool = False) -> Outcome:
    """Run the plan, and heed the signals that end it early.

    Raises:
        FairshareError: see :meth:`fairshare.runner.sweep.Sweep.run`.
    """
    task = asyncio.create_task(conductor.run(plan, trial=trial))
    with _signals(conductor, task):
        try:
            return await task
        except asyncio.CancelledError:
            conductor.outcome.stopped = True
            return conductor.outcome


async def unless_stopped(starting: Coroutine[Any, Any, T], stop: asyncio.Event) -> T | None:
    """What ``starting`` returns, or None if the user stops the run first.

    A large model takes minutes to load; nobody should have to wait for it in order to stop.
    """
    start = asyncio.create_task(starting)
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((start, stopped), return_when=asyncio.FIRST_COMPLETED)
        return start.result() if start.done() else None
    finally:
        for task in (start, stopped):
            task.cancel()
        await asyncio.gather(start, stopped, return_exceptions=True)


@contextlib.contextmanager
def _signals(conductor: Conductor, task: asyncio.Task[Outcome]) -> Iterator[None]:
    """The first Ctrl-C ends the cell and cleans up; the second kills the servers first.

    Each acts before it speaks, since the terminal may be gone; and the task is cancelled only
    once, so that a third Ctrl-C does not cut the tidying short.
    """
    loop = asyncio.get_running_loop()
    stop, events = conductor.stop, conductor.events
    killing: list[asyncio.Task[None]] = []

    async def kill() -> None:
        await conductor.kill_processes()
        if not task.cancelling():
            task.cancel()
        events.emit("stop.requested", how="at once")

    def first_or_second() -> None:
        if not stop.is_set():
            stop.set()
            events.emit("stop.requested", how="in order")
            return
        if all(each.done() for each in killing):
            killing.append(loop.create_task(kill()))

    watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in watched:
        loop.add_signal_handler(number, first_or_second)
    try:
        yield
    finally:
        for number in watched:
            loop.remove_signal_handler(number)
        for each in killing:
            each.cancel()
