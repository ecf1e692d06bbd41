"""The tenants' clients in virtual time: the same requests, sent by the same rules as real ones.

What :mod:`fairshare.load` does with sockets and an event loop happens here between two events of a
virtual clock: closed loops, schedules, interactions, timeouts, pauses after failures, and a record
for each request.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Sequence_
from dataclasses import dataclass, field

from fairshare.records import ErrorKind, Phase, RequestRecord
from fairshare.units import NS_PER_S
from fairshare.virtual.clock import Clock
from fairshare.virtual.engine import Sequence
from fairshare.virtual.front_end import passing
from fairshare.virtual.prefixes import block_names
from fairshare.virtual.simulated import Flight, SimulatedServer
from fairshare.workload.pauses import failure_pause_s
from fairshare.workload.requests import PlannedRequest
from fairshare.workload.turns import Turn

NEVER_S = float("inf")
_NO_TURN = Turn()
Done = Callable[[RequestRecord], None]


def unsaid(_: PlannedRequest) -> Sequence_[int]:
    """A prompt of which nothing but its length is known."""
    return ()


@dataclass(frozen=True, slots=True)
class Source:
    """One tenant: whom it asks for what, and how. ``concurrency`` is None in open loop.

    ``prompt_of`` says what a request's prompt consists of; with ``prefix_caching`` the server finds
    blocks of it that it has computed before.
    """

    tenant: str
    server: SimulatedServer
    server_name: str
    requests: Iterator[PlannedRequest]
    concurrency: int | None
    think_s: float
    timeout_s: float
    prompt_of: Callable[[PlannedRequest], Sequence_[int]] = unsaid
    prefix_caching: bool = True


@dataclass(slots=True)
class Traffic:
    """Sends requests and makes a record of each, whatever becomes of it."""

    clock: Clock
    sink: Callable[[RequestRecord], None]
    window_start_s: float = NEVER_S
    round: int | None = None
    measured: Counter[str] = field(default_factory=Counter)
    active: dict[Flight, SimulatedServer] = field(default_factory=dict)

    def launch(
        self, source: Source, request: PlannedRequest, intended_s: float, on_done: Done | None
    ) -> None:
        """Send a request now that was meant to be sent at ``intended_s``."""
        turn = request.turn or _NO_TURN
        prompt = source.prompt_of(request)
        sequence = Sequence(
            request.id,
            source.tenant,
            request.prompt_tokens,
            request.max_tokens,
            arrival_s=self.clock.now_s,
            app=turn.app or "",
            interaction=turn.interaction,
            call=turn.call or 1,
            calls=turn.calls or 1,
            output_tokens=request.max_tokens,
            prefix=block_names(prompt) if source.prefix_caching else (),
        )
        measured = intended_s >= self.window_start_s
        record = RequestRecord(
            id=request.id,
            tenant=source.tenant,
            server=source.server_name,
            phase=Phase.MEASURE if measured else Phase.WARMUP,
            intended_ns=round(intended_s * NS_PER_S),
            sent_ns=round(self.clock.now_s * NS_PER_S),
            round=self.round,
            app=turn.app,
            interaction=turn.interaction,
            call=turn.call,
            calls=turn.calls,
            prompt_tokens=request.prompt_tokens,
            empty_chunks=0,
        )
        flight = Flight(
            sequence,
            lambda flight: self._landed(source, flight, record, on_done),
            passing=passing(prompt),
        )
        self.active[flight] = source.server
        source.server.submit(flight)
        self.clock.at(self.clock.now_s + source.timeout_s, self._time_out, (flight, record))

    def cancel_all(self) -> None:
        """End everything in flight."""
        for flight, server in list(self.active.items()):
            server.cancel(flight)

    def _time_out(self, what: tuple[Flight, RequestRecord]) -> None:
        flight, record = what
        if flight.end_s is None:
            record.error = ErrorKind.TIMEOUT
            record.error_text = "no complete answer in time"
            self.active[flight].cancel(flight)

    def _landed(
        self, source: Source, flight: Flight, record: RequestRecord, on_done: Done | None
    ) -> None:
        del self.active[flight]
        assert flight.end_s is not None  # noqa: S101  (it has landed)
        record.end_ns = round(flight.end_s * NS_PER_S)
        self._note_answer(source, flight, record)
        if record.phase is Phase.MEASURE:
            self.measured[source.tenant] += 1
        if on_done is not None:
            on_done(record)
        self.sink(record)

    def _note_answer(self, source: Source, flight: Flight, record: RequestRecord) -> None:
        assert record.end_ns is not None  # noqa: S101  (set by the caller)
        if flight.refusal is not None:
            record.headers_ns, record.status = record.end_ns, 429
            record.error, record.error_text = ErrorKind.HTTP_4XX, flight.refusal.reason
            record.retry_after_s = flight.refusal.retry_after_s
            return
        times = source.server.token_times_ns(flight)
        while times and times[-1] > record.end_ns:
            times.pop()
        record.headers_ns, record.status = record.sent_ns, 200
        record.cached_tokens = flight.sequence.cached_tokens
        record.first_token_ns = times[0] if times else None
        record.chunk_ns, record.chunk_tokens = times, [1] * len(times)
        if len(times) == flight.sequence.max_output_tokens:
            record.output_tokens, record.finish_reason = len(times), "length"
        elif record.error is None:
            record.error = ErrorKind.UNFINISHED
            record.error_text = "still running when the cell ended"


class Closed:
    """N clients, each with one request in flight or thinking; or with one interaction."""

    def __init__(self, source: Source, traffic: Traffic) -> None:
        assert source.concurrency is not None  # noqa: S101  (the caller looked)
        self._clients = [_Client(source, traffic) for _ in range(source.concurrency)]

    def open(self, start_s: float, end_s: float, plan_s: float) -> None:
        """Let every client begin at ``start_s``; nothing is sent from ``end_s`` on."""
        for client in self._clients:
            client.open(start_s, end_s)

    def shut(self, end_s: float) -> None:
        """Let no client send again."""
        for client in self._clients:
            client.end_s = 0.0


class _Client:
    def __init__(self, source: Source, traffic: Traffic) -> None:
        self.end_s = 0.0
        self._source = source
        self._traffic = traffic
        self._calls: deque[PlannedRequest] = deque()  # what is left of its interaction
        self._failures = 0
        self._session = 0

    def open(self, start_s: float, end_s: float) -> None:
        self.end_s = end_s
        self._session += 1
        self._calls.clear()
        self._traffic.clock.at(start_s, self._send, self._session)

    def _send(self, session: int) -> None:
        now_s = self._traffic.clock.now_s
        if session != self._session or now_s >= self.end_s or (request := self._take()) is None:
            return
        self._traffic.launch(self._source, request, now_s, lambda done: self._done(done, session))

    def _take(self) -> PlannedRequest | None:
        if self._calls:
            return self._calls.popleft()
        request = next(self._source.requests, None)
        if request is not None and request.turn is not None:
            for _ in range((request.turn.calls or 1) - 1):
                if (call := next(self._source.requests, None)) is not None:
                    self._calls.append(call)
        return request

    def _done(self, record: RequestRecord, session: int) -> None:
        self._failures = 0 if record.ok else self._failures + 1
        if session != self._session:
            return
        if not record.ok:
            self._calls.clear()
        think_s = self._source.think_s
        if self._calls and (turn := self._calls[0].turn) is not None:
            think_s = turn.think_s
        pause_s = failure_pause_s(self._failures, record.retry_after_s)
        clock = self._traffic.clock
        clock.at(clock.now_s + think_s + pause_s, self._send, session)


class Scheduled:
    """Open loop: sends at the planned times; a further call waits for the one before it too."""

    def __init__(self, source: Source, traffic: Traffic) -> None:
        self._source = source
        self._traffic = traffic
        self._next: PlannedRequest | None = None
        self._chains: dict[str, _Chain] = {}
        self._shift_s = 0.0
        self._end_s = 0.0
        self._session = 0

    def open(self, start_s: float, end_s: float, plan_s: float) -> None:
        """Send what the plan has from ``plan_s`` on, which falls on ``start_s``."""
        self._shift_s, self._end_s = start_s - plan_s, end_s
        self._session += 1
        self._chains.clear()
        if self._next is None:
            self._next = next(self._source.requests, None)
        self._arm()

    def shut(self, end_s: float) -> None:
        """Send nothing more."""
        self._end_s = min(self._end_s, end_s)

    def _arm(self) -> None:
        if self._next is not None:
            due_s = self._due_s(self._next)
            if due_s < self._end_s:
                clock = self._traffic.clock
                clock.at(max(due_s, clock.now_s), self._fire, self._session)

    def _due_s(self, request: PlannedRequest) -> float:
        assert request.intended_ns is not None  # noqa: S101  (a schedule has times)
        return request.intended_ns / NS_PER_S + self._shift_s

    def _fire(self, session: int) -> None:
        request = self._next
        if session != self._session or request is None or self._due_s(request) >= self._end_s:
            return
        self._next = next(self._source.requests, None)
        if request.turn is not None and (request.turn.calls or 1) > 1:
            self._offer(request, request.turn)
        else:
            self._traffic.launch(self._source, request, self._due_s(request), None)
        self._arm()

    def _offer(self, request: PlannedRequest, turn: Turn) -> None:
        assert turn.interaction is not None  # noqa: S101  (it has several calls)
        if turn.call == 1:
            self._chains[turn.interaction] = _Chain()
        chain = self._chains.get(turn.interaction)
        if chain is None:
            return  # it was broken off
        chain.waiting.append((request, turn))
        if not chain.busy:
            self._follow(chain)

    def _follow(self, chain: _Chain) -> None:
        request, turn = chain.waiting[0]
        due_s = self._due_s(request)
        if chain.free_s is not None:
            due_s = max(due_s, chain.free_s + turn.think_s)
        if due_s < self._end_s:
            chain.busy = True
            clock = self._traffic.clock
            clock.at(max(due_s, clock.now_s), self._call, (chain, due_s, self._session))

    def _call(self, what: tuple[_Chain, float, int]) -> None:
        chain, due_s, session = what
        if session != self._session or due_s >= self._end_s:
            return
        request, turn = chain.waiting.popleft()
        self._traffic.launch(
            self._source, request, due_s, lambda record: self._answered(chain, turn, record)
        )

    def _answered(self, chain: _Chain, turn: Turn, record: RequestRecord) -> None:
        assert turn.interaction is not None  # noqa: S101  (it has several calls)
        if not record.ok or turn.call == turn.calls:
            if self._chains.get(turn.interaction) is chain:
                del self._chains[turn.interaction]
            return
        chain.busy = False
        chain.free_s = self._traffic.clock.now_s
        if chain.waiting:
            self._follow(chain)


@dataclass(slots=True, eq=False)
class _Chain:
    """Calls of one interaction whose own time has come; ``busy`` while one is armed or sent."""

    waiting: deque[tuple[PlannedRequest, Turn]] = field(default_factory=deque)
    busy: bool = False
    free_s: float | None = None
