"""A server with continuous batching, as simple as the theory of fair queuing assumes it.

Memory is counted in tokens of the KV cache, a decode step gives each running request one token, and
new requests join every so many steps. What was served is counted here and not by the policy, after
every single event, so that bounds can be checked over all intervals there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from fairshare.scheduling.policy import Request, SchedulingPolicy

INPUT_PRICE = 1.0
OUTPUT_PRICE = 2.0


def fits(running: Iterable[Request], candidate: Request, capacity: float, max_running: int) -> bool:
    """Whether all can run to their ends together (the test of VTC's artifact).

    Sorted by what they still have to produce, the most first: when the k-th ends, the first k hold
    what they hold now and as much more each as the k-th still had to produce.
    """
    rows = [(r.max_output_tokens - r.produced - 1, r.prompt_tokens + r.produced) for r in running]
    rows.append((candidate.max_output_tokens - 1, candidate.prompt_tokens + 1))
    rows.sort(reverse=True)
    held = need = 0.0
    for k, (left, used) in enumerate(rows, start=1):
        held += used
        need = max(need, held + k * left)
    return need < capacity and len(rows) <= max_running


@dataclass
class Course:
    """What happened: after each event, who waited, and what each tenant had got until then."""

    tenants: Sequence[str]
    times_s: list[float] = field(default_factory=list)
    served: dict[str, list[float]] = field(default_factory=dict)
    backlogged: dict[str, list[bool]] = field(default_factory=dict)
    admitted: list[Request] = field(default_factory=list)
    finished: list[Request] = field(default_factory=list)
    refused: list[Request] = field(default_factory=list)

    def note(self, now_s: float, service: dict[str, float], waiting: dict[str, int]) -> None:
        """One event has happened."""
        self.times_s.append(now_s)
        for tenant in self.tenants:
            self.served.setdefault(tenant, []).append(service[tenant])
            self.backlogged.setdefault(tenant, []).append(waiting[tenant] > 0)

    def widest_gap(self, one: str, other: str) -> float:
        """The largest difference of service over any interval in which both always waited."""
        widest = low = high = 0.0
        was_open = False
        rows = zip(
            self.served[one],
            self.served[other],
            self.backlogged[one],
            self.backlogged[other],
            strict=True,
        )
        for mine, theirs, one_waits, other_waits in rows:
            gap = mine - theirs
            low, high = (min(low, gap), max(high, gap)) if was_open else (gap, gap)
            widest = max(widest, high - low)  # what happens as a queue empties still belongs to it
            was_open = one_waits and other_waits
        return widest

    def widest_lead(self, ahead: str, waiter: str) -> float:
        """The most that one tenant got beyond another, over any interval in which that waited."""
        widest = low = 0.0
        was_open = False
        rows = zip(self.served[ahead], self.served[waiter], self.backlogged[waiter], strict=True)
        for theirs, mine, waits in rows:
            lead = theirs - mine
            low = min(low, lead) if was_open else lead
            widest = max(widest, lead - low)
            was_open = waits
        return widest


@dataclass
class BatchServer:
    """The server; ``after_admission`` and ``around_arrival`` are called, to look at the policy."""

    policy: SchedulingPolicy
    capacity: float
    max_running: int = 10_000
    batch_tokens: float = float("inf")
    """The prompts that may join at once."""
    steps_between: int = 10
    step_s: float = 0.05
    weights: dict[str, float] = field(default_factory=dict)
    until_s: float = float("inf")
    after_admission: Callable[[], None] = lambda: None
    around_arrival: Callable[[str, Callable[[], None]], None] = lambda tenant, arrive: arrive()

    def serve(self, requests: Sequence[Request]) -> Course:
        """Serve them to their ends, or until the time is over."""
        self._course = Course(sorted({request.tenant for request in requests}))
        self._service = dict.fromkeys(self._course.tenants, 0.0)
        self._waiting = dict.fromkeys(self._course.tenants, 0)
        self._running: list[Request] = []
        self._now_s = 0.0
        coming = sorted(requests, key=lambda request: request.arrival_s)
        step = arrived = 0
        while self._now_s < self.until_s:
            while arrived < len(coming) and coming[arrived].arrival_s <= self._now_s:
                self._arrive(coming[arrived])
                arrived += 1
            if not self._running or step % self.steps_between == 0:
                self._form_batch()
            if self._running:
                self._decode()
                self._now_s += self.step_s
                step += 1
            elif arrived < len(coming):
                self._now_s = coming[arrived].arrival_s
            else:
                break
        return self._course

    def _arrive(self, request: Request) -> None:
        def arrive() -> None:
            if self.policy.arrive(request, self._now_s) is None:
                self._waiting[request.tenant] += 1
            else:
                self._course.refused.append(request)

        self.around_arrival(request.tenant, arrive)
        self._note()

    def _form_batch(self) -> None:
        prompts = 0
        while (head := self.policy.head(self._now_s)) is not None:
            prompts += head.prompt_tokens
            room = fits(self._running, head, self.capacity, self.max_running)
            if not room or prompts > self.batch_tokens:
                for thrown, _ in self.policy.does_not_fit(self._now_s):
                    self._waiting[thrown.tenant] -= 1
                    self._course.refused.append(thrown)
                return
            self.policy.admit(head, self._now_s)
            self._running.append(head)
            self._course.admitted.append(head)
            self._waiting[head.tenant] -= 1
            self._serve(head.tenant, INPUT_PRICE * head.prompt_tokens)
            self._note()
            self.after_admission()
        assert not any(self._waiting.values()), "the server idles although somebody waits"

    def _decode(self) -> None:
        for request in self._running:
            self.policy.produced(request, 1, self._now_s)
            self._serve(request.tenant, OUTPUT_PRICE)
        self._note()
        ended = [r for r in self._running if r.produced >= (r.output_tokens or r.max_output_tokens)]
        for request in ended:
            self._running.remove(request)
            self._course.finished.append(request)
            self.policy.finish(request, self._now_s)

    def _serve(self, tenant: str, service: float) -> None:
        self._service[tenant] += service / self.weights.get(tenant, 1.0)

    def _note(self) -> None:
        self._course.note(self._now_s, self._service, self._waiting)
