"""Requests in flight: each is launched once and becomes one record, whatever happens."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable

from fairshare.load.ahead import Prepared
from fairshare.load.exchange import UNFINISHED_TEXT, perform
from fairshare.load.lane import Lane
from fairshare.load.selfcheck import SelfCheck
from fairshare.records import ErrorKind, Phase, RequestRecord
from fairshare.workload.turns import Turn

Sink = Callable[[RequestRecord], None]
NEVER_NS = sys.maxsize
_NO_TURN = Turn()


class Flights:
    """Launches requests as tasks, and gives each record to the sink once it is complete.

    ``origin_ns`` is t = 0 of the records; what is meant to be sent from ``window_start_ns`` on is
    measured (both on the monotonic clock). ``round`` is stamped into what is launched.
    ``on_landing`` is called after each record and each failure of our own; ``error`` is the first
    such failure (of the sink, or of whoever plans the requests).
    """

    def __init__(self, sink: Sink, check: SelfCheck) -> None:
        self.origin_ns = 0
        self.window_start_ns = NEVER_NS
        self.round: int | None = None
        self.active: set[asyncio.Task[None]] = set()
        self.measured: Counter[str] = Counter()  # tenant -> measured requests that have ended
        self.on_landing: Callable[[], None] = lambda: None
        self.error: Exception | None = None
        self._sink = sink
        self._check = check

    def launch(
        self,
        lane: Lane,
        request: Prepared,
        intended_ns: int,
        on_done: Callable[[RequestRecord], None] | None = None,
    ) -> None:
        """Send ``request`` now; ``intended_ns`` (monotonic) is when it was meant to be sent."""
        target, turn = lane.target, request.turn or _NO_TURN
        record = RequestRecord(
            id=request.id,
            tenant=target.tenant,
            server=target.server,
            phase=Phase.MEASURE if intended_ns >= self.window_start_ns else Phase.WARMUP,
            intended_ns=intended_ns - self.origin_ns,
            round=self.round,
            app=turn.app,
            interaction=turn.interaction,
            call=turn.call,
            calls=turn.calls,
        )
        scheduled = request.intended_ns is not None
        self._check.launched(target.tenant)
        coroutine = perform(lane, request, record, self.origin_ns)
        task = asyncio.get_running_loop().create_task(coroutine)
        self.active.add(task)
        # A callback, not the end of the coroutine: a task cancelled before its first step never
        # enters its coroutine, and would be a request without a record.
        task.add_done_callback(lambda task: self._landed(task, record, scheduled, on_done))

    def fail(self, error: Exception) -> None:
        """Note a failure of our own, which ends the run; callbacks cannot raise."""
        self.error = self.error or error
        self.on_landing()

    def cancel(self) -> None:
        """End everything in flight; the records say UNFINISHED."""
        for task in self.active:
            task.cancel()

    def _landed(
        self,
        task: asyncio.Task[None],
        record: RequestRecord,
        scheduled: bool,
        on_done: Callable[[RequestRecord], None] | None,
    ) -> None:
        self.active.discard(task)
        self._check.landed(record.tenant)
        if record.end_ns is None:  # it was cancelled before its first step
            record.end_ns = time.monotonic_ns() - self.origin_ns
            record.error, record.error_text = ErrorKind.UNFINISHED, UNFINISHED_TEXT
        if record.phase is Phase.MEASURE:
            self.measured[record.tenant] += 1
        if on_done is not None:
            on_done(record)
        self._check.add(record, scheduled=scheduled)
        try:
            self._sink(record)
        except Exception as error:  # kept, and raised by the driver
            self.fail(error)
            return
        self.on_landing()
