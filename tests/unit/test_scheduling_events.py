"""Every policy under random events: nothing is lost, forgotten too early, or charged twice."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairshare.scheduling import counters as counters_module
from fairshare.scheduling.policies import names, policy_for
from fairshare.scheduling.policy import Request, SchedulingPolicy

seeds = st.integers(0, 2**32)
some = settings(max_examples=10, deadline=None)


@dataclass
class Events:
    """Random events, told as the seam allows them; the same ones for the same seed."""

    policy: SchedulingPolicy
    seed: int
    tenants: int = 6
    refunds: bool = True
    most_running: int = 8
    waiting: set[Request] = field(default_factory=set)
    running: list[Request] = field(default_factory=list)
    ended: dict[Request, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    begun: set[Request] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._sent = 0
        self._now_s = 0.0

    def happen(self, count: int) -> None:
        """So many events, then all that is left is served."""
        for _ in range(count):
            self._now_s += self._rng.choice((0.0, 0.1, 0.1, 3.0))
            event = self._rng.choices(
                (self._arrive, self._fill, self._decode, self._cancel, self._put_back),
                (4, 3, 6, 1, 2),
            )[0]
            event()
            assert set(self.policy.waiting()) == self.waiting
            assert len(self.policy) == len(self.waiting)
        while self.waiting or self.running:
            self._now_s += 0.1
            self._fill()
            self._decode()

    def _arrive(self) -> None:
        # Tenants of low number come often, others hardly ever: so there are idle ones.
        tenant = f"t{int(self.tenants * self._rng.random() ** 3)}"
        most = self._rng.randint(1, 20)
        chain = f"{tenant}-{self._sent // 3}"
        request = Request(
            f"r{self._sent}",
            tenant,
            self._rng.randint(1, 50),
            most,
            self._now_s,
            interaction=chain,
            output_tokens=self._rng.randint(1, most),
        )
        self._sent += 1
        if self.policy.arrive(request, self._now_s) is None:
            self.waiting.add(request)
        else:
            self.ended[request] = "refused"

    def _fill(self) -> None:
        while (head := self.policy.head(self._now_s)) is not None:
            assert self.policy.head(self._now_s) is head  # looking changes nothing
            assert head in self.waiting
            if len(self.running) >= self.most_running:
                for request, _ in self.policy.does_not_fit(self._now_s):
                    self.waiting.remove(request)
                    self.ended[request] = "refused"
                return
            self.policy.admit(head, self._now_s)
            self.policy.rank(head)
            self.waiting.remove(head)
            self.running.append(head)
            self.begun.add(head)
            self.order.append(head.id)
        assert not self.waiting, "there is room, and somebody waits"

    def _decode(self) -> None:
        for request in list(self.running):
            self.policy.produced(request, 1, self._now_s)
            if request.produced == request.output_tokens:
                self.policy.finish(request, self._now_s)
                self.running.remove(request)
                self.ended[request] = "finished"

    def _cancel(self) -> None:
        known = sorted([*self.waiting, *self.running], key=lambda request: request.id)
        if known:
            request = self._rng.choice(known)
            refund = self.refunds and self._rng.random() < 0.5
            self.policy.cancel(request, self._now_s, refund=refund)
            self.waiting.discard(request)
            if request in self.running:
                self.running.remove(request)
            self.ended[request] = "cancelled"
        self.policy.cancel(Request("unknown", "t0", 1, 1), self._now_s, refund=True)

    def _put_back(self) -> None:
        if not self.running:
            return
        request = self.running.pop()  # the newest, as engines do
        preempted = request.produced > 0 or not self.refunds or self._rng.random() < 0.5
        self.policy.put_back(request, self._now_s, preempted=preempted)
        self.waiting.add(request)
        if not preempted:
            self.begun.discard(request)


@pytest.mark.parametrize("name", names())
@given(seed=seeds)
@some
def test_no_request_is_lost(name: str, seed: int) -> None:
    """Whatever is cancelled, put back or thrown out: each request ends once, and nobody is left."""
    events = Events(policy_for(name), seed)
    events.happen(300)
    assert len(events.ended) == events._sent
    assert list(events.policy.waiting()) == []


@pytest.mark.parametrize("name", names())
def test_the_same_events_give_the_same_order(name: str) -> None:
    """A policy that is told the same a second time admits the same requests in the same order."""
    orders = []
    for _ in range(2):
        events = Events(policy_for(name), seed=5)
        events.happen(400)
        orders.append(events.order)
    assert orders[0] == orders[1]
    assert len(orders[0]) > 50


@pytest.mark.parametrize("name", ["vtc", "lcf"])
@given(seed=seeds)
@some
def test_the_head_is_of_the_least_counter(name: str, seed: int) -> None:
    """However counters rise, and fall by refunds, the heap says what a look at all would say."""
    policy = policy_for(name)
    head = policy.head

    def watched(now_s: float) -> Request | None:
        found = head(now_s)
        if found is not None:
            counters = policy.counters()
            least = min(counters[request.tenant] for request in policy.waiting())
            assert counters[found.tenant] == least
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "head", watched)
        Events(policy, seed).happen(300)


@given(seed=seeds)
@settings(max_examples=50, deadline=None)
def test_forgetting_idle_tenants_changes_nothing(seed: int) -> None:
    """VTC admits in the same order, be the counters of idle tenants dropped at once or never."""
    orders = []
    for threshold in (-(10**9), 10**9):  # always, and never
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(counters_module, "FORGET_ABOVE", threshold)
            events = Events(policy_for("vtc"), seed, tenants=15)
            events.happen(400)
        orders.append(events.order)
    assert orders[0] == orders[1]


@pytest.mark.parametrize("name", ["vtc", "drr", "round-robin", "rpm", "tpm"])
def test_tenants_that_are_gone_are_forgotten(name: str) -> None:
    """Of 20,000 tenants that each came once, few are remembered, so that memory is bounded."""
    policy = policy_for(name)
    for number in range(20_000):
        request = Request(str(number), f"tenant {number}", 10, 2, arrival_s=number)
        assert policy.arrive(request, number) is None
        policy.admit(request, number)
        policy.produced(request, 2, number)
        policy.finish(request, number)
    assert len(policy.counters()) < 3000


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cost": "profiled"},
        {"prediction": "average"},
        {"prediction": "oracle", "error_fraction": 0.5},
    ],
    ids=str,
)
@given(seed=seeds)
@some
def test_in_the_end_everything_is_charged_once(options: dict[str, Any], seed: int) -> None:
    """Preempted or not, predicted or not: a counter that nothing lifts is the sum of the costs."""
    events = Events(policy_for("lcf", options), seed, refunds=False)
    events.happen(300)
    cost = _profiled if options.get("cost") == "profiled" else _linear
    charged: dict[str, float] = {}
    for request in events.begun:
        paid = cost(request.prompt_tokens, request.produced)
        charged[request.tenant] = charged.get(request.tenant, 0.0) + paid
    counted = {tenant: c for tenant, c in events.policy.counters().items() if c}
    assert counted == pytest.approx(charged, rel=1e-9)


def _linear(x: int, y: int) -> float:
    return x + 2 * y


def _profiled(x: int, y: int) -> float:
    return 0.21001891 * x + 0.10075395 * y + 0.0039868 * x * y + 0.00324733 * y * y + 1.14601454


@pytest.mark.parametrize("name", names())
def test_what_cannot_happen_is_said(name: str) -> None:
    """Arriving twice, being admitted twice, or being put back without running is a ValueError."""
    policy = policy_for(name)
    request = Request("1", "", 5, 5)  # a tenant may have any name
    with pytest.raises(ValueError, match="'1'"):
        policy.admit(request, 0)
    policy.arrive(request, 0)
    with pytest.raises(ValueError, match="'1'"):
        policy.arrive(request, 0)
    assert policy.head(0) is request
    policy.admit(request, 0)
    with pytest.raises(ValueError, match="'1'"):
        policy.admit(request, 0)
    policy.finish(request, 0)
    with pytest.raises(ValueError, match="'1'"):
        policy.put_back(request, 0, preempted=True)
    policy.produced(request, 1, 0)  # a late token of a request that is gone
    policy.finish(request, 0)
    assert len(policy) == 0
