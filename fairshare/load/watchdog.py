"""The two limits of a request, kept by one timer instead of one per read."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Protocol, Self

from fairshare.load.transport import TransportError
from fairshare.records import ErrorKind
from fairshare.units import NS_PER_S


class Activity(Protocol):
    """What the watchdog looks at: when the stream last said something (None: not yet)."""

    last_ns: int | None


class Watchdog:
    """Ends the surrounding block with a TransportError when a request takes too long.

    TIMEOUT after ``timeout_s`` in all; STALLED when ``activity.last_ns`` is older than
    ``stall_s``. Cancellation from outside passes through, as with ``asyncio.timeout``.
    """

    def __init__(self, activity: Activity, *, timeout_s: float, stall_s: float) -> None:
        self._activity = activity
        self._timeout_s = timeout_s
        self._stall_s = stall_s
        self._deadline_ns = 0
        self._fired: TransportError | None = None
        self._cancelling = 0
        self._task: asyncio.Task[object] | None = None
        self._handle: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        assert self._task is not None  # noqa: S101  (coroutines run in tasks)
        self._cancelling = self._task.cancelling()
        self._deadline_ns = time.monotonic_ns() + round(self._timeout_s * NS_PER_S)
        self._arm(min(self._timeout_s, self._stall_s))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._handle is not None and self._task is not None  # noqa: S101  (entered)
        self._handle.cancel()
        if self._fired is None:
            return
        only_ours = self._task.uncancel() <= self._cancelling
        if only_ours and exc_type is not None and issubclass(exc_type, asyncio.CancelledError):
            raise self._fired from exc

    def _arm(self, delay_s: float) -> None:
        self._handle = asyncio.get_running_loop().call_later(delay_s, self._check)

    def _check(self) -> None:
        now = time.monotonic_ns()
        left_s = (self._deadline_ns - now) / NS_PER_S
        quiet_s = 0.0
        if (last := self._activity.last_ns) is not None:
            quiet_s = (now - last) / NS_PER_S
        if left_s <= 0:
            self._fire(ErrorKind.TIMEOUT, f"not answered within {self._timeout_s:g} s")
        elif quiet_s >= self._stall_s:
            self._fire(ErrorKind.STALLED, f"the stream was silent for {self._stall_s:g} s")
        else:
            self._arm(min(left_s, self._stall_s - quiet_s))

    def _fire(self, kind: ErrorKind, text: str) -> None:
        self._fired = TransportError(kind, text)
        assert self._task is not None  # noqa: S101  (entered)
        self._task.cancel()
