"""vLLM's queue of waiting requests, in the order of a policy.

vLLM looks at the head, and then takes it, or stops if it does not fit, or takes it and puts it back
at the end of the step (because it cannot run yet: its grammar is being compiled). It also puts back
what it preempts. Here each of these is an event of the policy, so that a request is charged for its
prompt when it is taken, and once, however often it runs.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fairshare.scheduling.names import Names
from fairshare.scheduling.policy import Refusal, Request, SchedulingPolicy
from fairshare.vllm_plugins.decisions import Decisions, Line
from fairshare.vllm_plugins.interface import RequestLike
from fairshare.vllm_plugins.labels import DEFAULT_TENANT, described

MOST_TENANTS = 10_000
MOST_APPS = 1000
"""So many that clients name are told apart, since policies remember each; more are one."""
_ANSWERED = ("FINISHED_STOPPED", "FINISHED_LENGTH_CAPPED", "FINISHED_REPETITION")
_HOLDING = ("WAITING_FOR_REMOTE_KVS", "WAITING_FOR_STREAMING_REQ")


@dataclass(slots=True, eq=False)
class _Entry:
    """A request of vLLM's and what the policy knows it as."""

    served: Any
    request: Request
    waits: bool = True


class FairQueue:
    """Takes the place of vLLM's ``RequestQueue``; has all its methods."""

    def __init__(
        self,
        policy: SchedulingPolicy,
        decisions: Decisions,
        known_tenants: Iterable[str] = (),
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tenants = Names(MOST_TENANTS, {DEFAULT_TENANT, *known_tenants})
        self._apps = Names(MOST_APPS, {""})
        self._policy = policy
        self._decisions = decisions
        self._clock_s = clock_s
        self._entries: dict[str, _Entry] = {}
        self._refused: dict[str, tuple[Any, Refusal]] = {}
        self._head: _Entry | None = None  # what peek and pop agree on
        self._peeked = False  # the head was looked at and not taken since
        self._taken: list[tuple[_Entry, Line | None]] = []  # in this step

    # What vLLM calls.

    def add_request(self, request: RequestLike) -> None:
        """A request has come, or one that was taken has: a session waits for its next turn."""
        if request.request_id in self._entries:
            self.prepend_request(request)
            return
        now_s = self._clock_s()
        entry = _Entry(request, described(request, now_s))
        entry.request.tenant = self._tenants.told_apart(entry.request.tenant)
        entry.request.app = self._apps.told_apart(entry.request.app)
        refusal = self._policy.arrive(entry.request, now_s)
        self._head = None
        if refusal is not None:
            self._refuse(entry, refusal)
            return
        self._entries[request.request_id] = entry
        self._decisions.tell("arrived", entry.request, len(self._policy))

    def peek_request(self) -> Any:
        """The head; the next one that is taken.

        Raises:
            IndexError: nobody waits, or nobody may go now.
        """
        entry = self._look()
        if entry is None:
            raise IndexError("peek from an empty queue")
        self._peeked = True
        return entry.served

    def pop_request(self) -> Any:
        """Take the head, which is charged for its prompt.

        Raises:
            IndexError: nobody waits, or nobody may go now.
        """
        entry = self._look()
        if entry is None:
            raise IndexError("pop from an empty queue")
        self._policy.admit(entry.request, self._clock_s())
        entry.waits = False
        line = self._decisions.admission(entry.request, len(self._policy))
        self._taken.append((entry, line))
        self._head = None
        self._peeked = False
        return entry.served

    def prepend_request(self, request: RequestLike) -> None:
        """Put back what was taken: it was preempted, or could not run in this step."""
        entry = self._entries.get(request.request_id)
        if entry is None:  # it never came through here
            self.add_request(request)
            return
        if entry.waits:
            return
        # Also when it is put back for another reason than its preemption, it was charged before.
        preempted = request.num_preemptions > 0
        self._policy.put_back(entry.request, self._clock_s(), preempted=preempted)
        entry.waits = True
        self._head = None
        if preempted and not any(taken is entry for taken, _ in self._taken):
            self._decisions.tell("preempted", entry.request, len(self._policy))

    def prepend_requests(self, requests: Iterable[RequestLike]) -> None:
        """Put back several, each before those that were put back before it."""
        for request in requests:
            self.prepend_request(request)

    def remove_request(self, request: RequestLike) -> None:
        """A request waits no longer; one that does not wait here is passed over."""
        self._refused.pop(request.request_id, None)
        entry = self._entries.get(request.request_id)
        if entry is not None and entry.waits:
            self._cancel(entry)

    def remove_requests(self, requests: Iterable[RequestLike]) -> None:
        """Several wait no longer."""
        for request in requests:
            self.remove_request(request)

    def __bool__(self) -> bool:
        """Whether somebody can be taken now."""
        return self._look() is not None

    def __len__(self) -> int:
        """How many wait, those included whose refusal must still be told."""
        return len(self._policy) + len(self._refused)

    def __iter__(self) -> Iterator[Any]:
        yield from (self._entries[each.id].served for each in self._policy.waiting())
        yield from (served for served, _ in self._refused.values())

    # What the scheduler tells and asks.

    def counters(self) -> dict[str, float]:
        """What the policy compares, by tenant."""
        return self._policy.counters()

    def produced(self, request: RequestLike, tokens: int) -> None:
        """A request has got so many tokens."""
        entry = self._entries.get(request.request_id)
        if entry is not None and tokens:
            self._policy.produced(entry.request, tokens, self._clock_s())
            self._head = None

    def ended(self, request: RequestLike) -> None:
        """A request is gone from the engine, with the status that it has now."""
        entry = self._entries.get(request.request_id)
        if entry is None:
            return
        status = request.status.name
        if entry.waits or status not in _ANSWERED:
            failed = status == "FINISHED_ERROR"
            refund = failed and not entry.request.produced
            self._cancel(entry, "failed" if failed else "cancelled", refund=refund)
            return
        del self._entries[request.request_id]
        self._policy.finish(entry.request, self._clock_s())
        self._head = None
        self._decisions.tell("finished", entry.request, len(self._policy))

    def stepped(self, *, full: bool) -> None:
        """A step was scheduled; ``full`` if no more can run, whatever the head needs."""
        for entry, line in self._taken:
            if not entry.waits:
                self._decisions.keep(line)
        self._taken.clear()
        if self._peeked or (full and self._look() is not None):  # there was no room for the head
            for request, refusal in self._policy.does_not_fit(self._clock_s()):
                self._refuse(self._entries.pop(request.id), refusal)
        self._head = None  # time may change who is next
        self._peeked = False

    def refused(self) -> list[tuple[Any, Refusal]]:
        """Those that are not served, and why; each is told once."""
        told = list(self._refused.values())
        self._refused.clear()
        return told

    def _look(self) -> _Entry | None:
        if self._head is None:
            head = self._policy.head(self._clock_s())
            self._head = None if head is None else self._entries[head.id]
        return self._head

    def _refuse(self, entry: _Entry, refusal: Refusal) -> None:
        self._refused[entry.request.id] = entry.served, refusal
        reason = {"reason": refusal.reason, "retry_after_s": refusal.retry_after_s}
        self._decisions.tell("refused", entry.request, len(self._policy), **reason)

    def _cancel(self, entry: _Entry, event: str = "cancelled", *, refund: bool = False) -> None:
        del self._entries[entry.request.id]
        entry.waits = False
        self._policy.cancel(entry.request, self._clock_s(), refund=refund)
        self._head = None
        self._decisions.tell(event, entry.request, len(self._policy))


class HoldersQueue(deque[Any]):
    """The second queue that vLLM had until 0.30, for what was skipped in a step.

    It is served before the other one. So only those stay in it that hold memory already, as in
    later versions; the others go back to where they came from.
    """

    def __init__(self, others: FairQueue) -> None:
        super().__init__()
        self._others = others

    def add_request(self, request: RequestLike) -> None:
        """A request that cannot run yet has come."""
        if _holds(request):
            self.append(request)
        else:
            self._others.add_request(request)

    def peek_request(self) -> Any:
        """The first."""
        return self[0]

    def pop_request(self) -> Any:
        """Take the first."""
        return self.popleft()

    def prepend_request(self, request: RequestLike) -> None:
        """Put back what was skipped."""
        if _holds(request):
            self.appendleft(request)
        else:
            self._others.prepend_request(request)

    def prepend_requests(self, requests: Iterable[RequestLike]) -> None:
        """Put back several."""
        for request in requests:
            self.prepend_request(request)

    def remove_request(self, request: RequestLike) -> None:
        """A request waits no longer, if it waits here."""
        self.remove_requests([request])

    def remove_requests(self, requests: Iterable[RequestLike]) -> None:
        """Several wait no longer."""
        gone = {each.request_id for each in requests}
        kept = [each for each in self if each.request_id not in gone]
        self.clear()
        self.extend(kept)


def _holds(request: RequestLike) -> bool:
    return request.num_computed_tokens > 0 or request.status.name in _HOLDING
