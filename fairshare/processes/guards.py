"""What must happen before processes of a run are killed: whoever knows it registers a guard.

An MPS client that is killed with work in flight may harm the other clients, so its daemon is told
first. A guard is asked, never obeyed: it has a moment, and then the processes are killed anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from fairshare.events import EventLog

Guard = Callable[[Sequence[int]], Awaitable[Any]]

GUARDS_S = 3.0


class KillGuards:
    """The guards of one run; all of them together get `GUARDS_S` seconds before a kill."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._guards: list[Guard] = []

    @contextlib.contextmanager
    def registered(self, guard: Guard) -> Iterator[None]:
        """Ask ``guard`` while the block lasts."""
        self._guards.append(guard)
        try:
            yield
        finally:
            self._guards.remove(guard)

    async def ask(self, pids: Sequence[int]) -> None:
        """Await every guard with the pids that are about to be killed; never fails."""
        if not self._guards or not pids:
            return
        started_s = time.monotonic()
        asked = [asyncio.ensure_future(guard(pids)) for guard in self._guards]
        done, late = await asyncio.wait(asked, timeout=GUARDS_S)
        for task in late:
            task.cancel()
        problems = [str(error) for task in done if (error := _error_of(task)) is not None]
        problems += [f"not done within {GUARDS_S:g} s"] if late else []
        self._events.emit(
            "process.guarded",
            pids=list(pids),
            duration_s=round(time.monotonic() - started_s, 3),
            problems=problems,
        )


def _error_of(task: asyncio.Future[Any]) -> BaseException | None:
    return asyncio.CancelledError("cancelled") if task.cancelled() else task.exception()
