"""What every policy that is offered keeps, whatever happens to requests in whatever order."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairshare.scheduling.policies import OFFERS, names, policy_for
from fairshare.scheduling.policy import Request, SchedulingPolicy, Tenants, Terms
from tests.batch_simulator import BatchServer

EVENTS = (
    ("arrive",) * 5
    + ("admit",) * 4
    + (
        "produce",
        "produce",
        "finish",
        "cancel",
        "preempt",
        "put back",
        "count prompt",
        "no room",
        "wait",
    )
)
Events = list[tuple[str, int]]
events = st.lists(
    st.tuples(st.sampled_from(EVENTS), st.integers(0, 10_000)), min_size=40, max_size=80
)
tenants = Tenants({"t1": Terms(2.0, slo_e2e_s=5.0), "t2": Terms(0.5)}, Terms(slo_e2e_s=9.0))

MEANT = [
    *names(),
    *(alias for offer in OFFERS for alias, meant in offer.aliases.items() if meant),
]
"""Each policy, and each name that stands for some of its options."""


class Server:
    """Tells a policy events, keeps books of its own, and holds the policy to them."""

    def __init__(self, policy: SchedulingPolicy) -> None:
        self.policy = policy
        self.now_s = 0.0
        self.waiting: dict[str, Request] = {}
        self.running: dict[str, Request] = {}
        self.ended: list[str] = []
        self.taken: list[str] = []
        self.count = 0

    def tell(self, event: str, number: int) -> None:
        """One event; ``number`` picks the details. What makes no sense now is passed over."""
        getattr(self, event.replace(" ", "_"))(number)
        self.check()

    def check(self) -> None:
        """The policy agrees about who waits, and can be asked anything."""
        assert len(self.policy) == len(self.waiting)
        assert sorted(request.id for request in self.policy.waiting()) == sorted(self.waiting)
        assert all(map(math.isfinite, self.policy.counters().values()))
        head = self.policy.head(self.now_s)
        assert head is self.policy.head(self.now_s)
        assert (head is None) == (not self.waiting)
        assert head is None or self.waiting[head.id] is head

    def arrive(self, number: int) -> None:
        """A new request comes."""
        self.count += 1
        output = number % 50 + 1
        request = Request(
            f"r{self.count}",
            f"t{number % 4}",
            prompt_tokens=number % 300,
            max_output_tokens=output,
            arrival_s=self.now_s,
            app=f"app{number % 3}",
            interaction=f"i{number % 7}" if number % 2 else None,
            call=number % 3 + 1,
            calls=3,
            system_tokens=number % 300 // 2,
            deadline_s=self.now_s + 3.0 if number % 5 == 0 else None,
            output_tokens=output if number % 3 else None,
        )
        refusal = self.policy.arrive(request, self.now_s)
        if refusal is None:
            self.waiting[request.id] = request
        else:
            assert refusal.reason
            assert refusal.retry_after_s is None or refusal.retry_after_s >= 0
            self.ended.append(request.id)

    def admit(self, number: int) -> None:
        """The head is served; a second time it cannot be."""
        head = self.policy.head(self.now_s)
        if head is not None:
            self.policy.admit(head, self.now_s)
            assert isinstance(self.policy.rank(head), int)
            with pytest.raises(ValueError, match=head.id):
                self.policy.admit(head, self.now_s)
            self.running[head.id] = self.waiting.pop(head.id)
            self.taken.append(head.id)

    def no_room(self, number: int) -> None:
        """The head does not fit."""
        if self.waiting:
            for request, refusal in self.policy.does_not_fit(self.now_s):
                assert refusal.reason
                self.end(self.waiting, request)

    def produce(self, number: int) -> None:
        """Some request gets tokens."""
        if (request := self.pick(self.running, number)) is not None:
            before = request.produced
            self.policy.produced(request, number % 3 + 1, self.now_s)
            assert request.produced == before + number % 3 + 1

    def count_prompt(self, number: int) -> None:
        """The server has counted some prompt."""
        if (request := self.pick(self.running, number)) is not None:
            self.policy.counted(request, number % 300, self.now_s)
            assert request.prompt_tokens == number % 300

    def finish(self, number: int) -> None:
        """Some request has been answered."""
        if (request := self.pick(self.running, number)) is not None:
            self.policy.finish(request, self.now_s)
            self.end(self.running, request)

    def cancel(self, number: int) -> None:
        """Some request goes, with or without a refund."""
        whose = self.running if number % 2 else self.waiting
        if (request := self.pick(whose, number)) is not None:
            self.policy.cancel(request, self.now_s, refund=number % 3 == 0)
            self.end(whose, request)
            self.check()
            self.policy.cancel(request, self.now_s)  # gone already, so it is passed over

    def preempt(self, number: int) -> None:
        """Some request loses its place on the server."""
        self.put_back(number, preempted=True)

    def put_back(self, number: int, *, preempted: bool = False) -> None:
        """Some request waits again."""
        if (request := self.pick(self.running, number)) is not None:
            self.policy.put_back(request, self.now_s, preempted=preempted)
            self.waiting[request.id] = self.running.pop(request.id)

    def wait(self, number: int) -> None:
        """Time passes."""
        self.now_s += number / 100

    def pick(self, whose: dict[str, Request], number: int) -> Request | None:
        """One of them."""
        return list(whose.values())[number % len(whose)] if whose else None

    def end(self, whose: dict[str, Request], request: Request) -> None:
        """It is gone for good."""
        del whose[request.id]
        self.ended.append(request.id)

    def drain(self) -> None:
        """All that are left are served to their ends."""
        while self.waiting or self.running:
            self.tell("admit", 0)
            self.tell("produce", 0)
            self.tell("finish", 0)
            self.now_s += 1.0


def course(name: str, told: Events) -> Server:
    """The events told to a new policy, and everybody served in the end."""
    server = Server(policy_for(name, None, tenants))
    for event, number in told:
        server.tell(event, number)
    server.drain()
    return server


@pytest.mark.parametrize("name", MEANT)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(told=events)
def test_no_request_is_lost_or_served_twice(name: str, told: Events) -> None:
    """Each that came ends once: finished, refused, thrown out or cancelled; books always agree.

    The head is never missing while somebody waits, does not change by being looked at, and cannot
    be admitted twice. The same events give the same order again.
    """
    server = course(name, told)
    assert sorted(server.ended) == sorted(f"r{n + 1}" for n in range(server.count))
    assert len(server.policy) == 0
    assert course(name, told).taken == server.taken


@pytest.mark.parametrize("name", MEANT)
def test_a_request_that_is_unknown_or_known_twice_is_an_error(name: str) -> None:
    """A request cannot arrive again while it waits or runs, nor be put back if it does not run."""
    policy = policy_for(name)
    request = Request("r1", "a", 10, 10, app="a")
    with pytest.raises(ValueError, match="r1"):
        policy.admit(request, 0.0)
    with pytest.raises(ValueError, match="r1"):
        policy.put_back(request, 0.0, preempted=True)
    policy.arrive(request, 0.0)
    with pytest.raises(ValueError, match="r1"):
        policy.arrive(request, 0.0)
    policy.admit(request, 0.0)
    with pytest.raises(ValueError, match="r1"):
        policy.arrive(request, 0.0)
    assert len(policy) == 0


@pytest.mark.parametrize("name", MEANT)
def test_whoever_is_let_in_is_served(name: str) -> None:
    """On a server short of memory all are answered in the end, and it never idles meanwhile."""
    requests = [
        Request(
            f"r{n}",
            f"t{n % 5}",
            prompt_tokens=n % 60 + 1,
            max_output_tokens=n % 40 + 1,
            arrival_s=n * 0.2,
            app="app",
            output_tokens=n % 40 + 1,
        )
        for n in range(150)
    ]
    served = BatchServer(policy_for(name, None, tenants), capacity=300).serve(requests)
    ended = [request.id for request in (*served.finished, *served.refused)]
    assert sorted(ended) == sorted(request.id for request in requests)
    assert served.finished
