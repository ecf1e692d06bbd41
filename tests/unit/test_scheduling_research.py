"""What all policies of research papers keep, and the bounds of DLPM and Justitia."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from itertools import count, permutations

import pytest

from fairshare.scheduling.justitia import kv_cost
from fairshare.scheduling.policies import policy_for
from fairshare.scheduling.policy import Request, SchedulingPolicy, Tenants, Terms

OFFERED: list[tuple[str, dict[str, object]]] = [
    ("fairserve", {"user_limit": 5, "app_limit": 30}),
    ("fairserve", {"counter": "precharged", "expectation": "always"}),
    ("fs_fair_interaction_limit", {"user_limit": 3}),
    ("fs_fair_overload_limit", {"user_limit": 3}),
    ("fs_fair_wsc_limit", {"user_limit": 30}),
    ("exfairs", {"round_s": 3, "latency_slo_s": 1}),
    ("exfairs-signed", {"round_s": 3, "latency_slo_s": 1}),
    ("slo-greedy", {"latency_slo_s": 1}),
    ("dlpm", {"quantum": 50}),
    ("justitia", {}),
    ("justitia", {"prediction": "limit"}),
]


class Chaos:
    """Random events, and what a policy answers to them."""

    def __init__(self, policy: SchedulingPolicy, seed: int) -> None:
        self.policy = policy
        self.draw = random.Random(seed)
        self.waits: set[Request] = set()
        self.runs: list[Request] = []
        self.said: list[str] = []
        self.served = 0
        self.now_s = 0.0
        self._names = count()

    def play(self) -> list[str]:
        """2,000 random events; then all that wait are served. What was said."""
        events = [self.arrive] * 3 + [self.admit] * 2
        events += [self.finish, self.put_back, self.cancel, self.full]
        for _ in range(2000):
            self.happen(self.draw.choice(events))
        while self.waits or self.runs:
            self.happen(self.admit)
            self.happen(self.finish)
        return self.said

    def happen(self, event: Callable[[], None]) -> None:
        """One event; afterwards exactly those wait that should."""
        self.now_s += self.draw.random() / 10
        event()
        assert set(self.policy.waiting()) == self.waits
        assert len(self.policy) == len(self.waits)

    def arrive(self) -> None:
        """One comes."""
        calls = self.draw.randint(1, 4)
        request = Request(
            f"r{next(self._names)}",
            f"t{self.draw.randrange(7)}",
            self.draw.randint(1, 80),
            self.draw.randint(1, 30),
            app=f"app{self.draw.randrange(3)}",
            interaction=self.draw.choice([None, f"i{self.draw.randrange(40)}"]),
            call=self.draw.randint(1, calls),
            calls=calls,
            cached_tokens=self.draw.randrange(3),
        )
        refused = self.policy.arrive(request, self.now_s)
        self.said.append(f"{request.id} {refused}")
        if refused is None:
            self.waits.add(request)

    def admit(self) -> None:
        """The head is served."""
        head = self.policy.head(self.now_s)
        assert (head is None) == (not self.waits)
        assert self.policy.head(self.now_s) is head
        if head is None:
            return
        self.waits.remove(head)
        self.policy.admit(head, self.now_s)
        self.said.append(f"{head.id} {self.policy.rank(head)}")
        self.runs.append(head)

    def full(self) -> None:
        """The head does not fit."""
        for request, refusal in self.policy.does_not_fit(self.now_s):
            self.said.append(f"{request.id} {refusal}")
            self.waits.remove(request)

    def finish(self) -> None:
        """One that runs is answered."""
        if (request := self._running()) is not None:
            self.policy.finish(request, self.now_s)
            self.served += 1

    def put_back(self) -> None:
        """One that runs is preempted, or was never begun."""
        preempted = self.draw.random() < 0.5
        if (request := self._running(begun=preempted)) is not None:
            self.policy.put_back(request, self.now_s, preempted=preempted)
            self.waits.add(request)

    def cancel(self) -> None:
        """One is gone, twice; whether it waits or runs."""
        if self.waits and self.draw.random() < 0.5:
            request: Request | None = min(self.waits, key=lambda one: one.id)
        else:
            request = self._running()
        if request is not None:
            self.waits.discard(request)
            self.policy.cancel(request, self.now_s, refund=self.draw.random() < 0.3)
            self.policy.cancel(request, self.now_s)

    def _running(self, *, begun: bool = True) -> Request | None:
        """One that runs, having got some more tokens if it was begun, which runs no more."""
        if not self.runs:
            return None
        request = self.runs.pop(self.draw.randrange(len(self.runs)))
        if begun:
            self.policy.produced(request, self.draw.randint(1, 5), self.now_s)
        return request


@pytest.mark.parametrize(("name", "options"), OFFERED)
def test_no_request_is_lost_and_the_order_is_always_the_same(
    name: str, options: dict[str, object]
) -> None:
    """Through random cancels, put-backs and preemptions each one waits until it is served."""
    tenants = Tenants({"t1": Terms(weight=2.0, slo_e2e_s=0.5)})
    for seed in range(3):
        one, other = (Chaos(policy_for(name, options, tenants), seed) for _ in range(2))
        assert one.play() == other.play()
        assert one.served > 100


class Engine:
    """A batch of at most ``memory`` tokens, each request held at its full size, no preemption."""

    def __init__(self, policy: SchedulingPolicy, memory: int) -> None:
        self.policy = policy
        self.memory = memory
        self.running: list[Request] = []
        self.time = 0
        self.work = 0.0
        """Tokens of KV cache times steps so far."""
        self.service: dict[str, float] = defaultdict(float)
        self.ended: dict[Request, float] = {}
        self.order: list[str] = []

    def step(self) -> None:
        """Admit what fits, and make a token for each."""
        held = sum(each.prompt_tokens + each.max_output_tokens for each in self.running)
        while (head := self.policy.head(self.time)) is not None:
            size = head.prompt_tokens + head.max_output_tokens
            if held + size > self.memory:
                break
            held += size
            self.policy.admit(head, self.time)
            self.order.append(head.id)
            self.service[head.tenant] += head.prompt_tokens - head.cached_tokens
            self.running.append(head)
        self.time += 1
        for request in list(self.running):
            before = kv_cost(request.prompt_tokens, request.produced)
            self.policy.produced(request, 1, self.time)
            self.work += kv_cost(request.prompt_tokens, request.produced) - before
            self.service[request.tenant] += 2
            if request.produced == request.max_output_tokens:
                self.running.remove(request)
                self.policy.finish(request, self.time)
                self.ended[request] = self.work


@pytest.mark.parametrize("seed", range(4))
def test_backlogged_tenants_get_the_same_service_from_dlpm(seed: int) -> None:
    """For their weights they differ by at most 2 (U + Q) over any interval, whatever is cached."""
    draw = random.Random(seed)
    weights = {"a": 1.0, "b": 1.0, "c": 2.0}
    memory, quantum = 400, 300.0
    terms = Tenants({tenant: Terms(weight=weight) for tenant, weight in weights.items()})
    engine = Engine(policy_for("dlpm", {"quantum": quantum}, terms), memory)
    for number in range(1500):
        for tenant in weights:
            prompt = draw.randint(10, 100)
            cached = draw.randrange(prompt) if tenant == "a" else 0
            request = Request(f"{tenant}{number}", tenant, prompt, draw.randint(1, 40))
            request.cached_tokens = cached
            engine.policy.arrive(request, 0)
    lowest: dict[tuple[str, str], float] = defaultdict(float)
    highest: dict[tuple[str, str], float] = defaultdict(float)
    for _ in range(1500):
        engine.step()
        served = {tenant: engine.service[tenant] / weight for tenant, weight in weights.items()}
        for pair in permutations(served, 2):
            gap = served[pair[0]] - served[pair[1]]
            lowest[pair] = min(lowest[pair], gap)
            highest[pair] = max(highest[pair], gap)
    assert len({request.tenant for request in engine.policy.waiting()}) == 3
    assert engine.service["c"] / engine.service["b"] == pytest.approx(2.0, rel=0.1)
    u = max(100, 2 * memory)
    assert all(highest[pair] - lowest[pair] <= 2 * (u + quantum) for pair in lowest)
    assert all(-u < deficit <= quantum for deficit in engine.policy.counters().values())


def test_dlpm_serves_the_longest_known_prefix_of_those_who_can_pay() -> None:
    """A chain's next call and a known template go first, until the deficit is spent."""
    policy = policy_for("dlpm", {"quantum": 500})
    for number in (1, 2):
        first = Request("first", "a", 100, 10, app="x", interaction="i", system_tokens=30)
        if number == 1:
            policy.arrive(first, 0)
            policy.admit(policy.head(0), 0)  # type: ignore[arg-type]
            policy.produced(first, 10, 1)
            policy.finish(first, 1)
    requests = [
        Request("cold", "b", 200, 10, app="y"),
        Request("template", "b", 200, 10, app="x", system_tokens=30),
        Request("chain", "a", 150, 10, app="x", interaction="i", call=2, calls=2),
        Request("stranger", "b", 150, 10, interaction="i", call=2, calls=2),
    ]
    for request in requests:
        policy.arrive(request, 2)
    order = []
    while (head := policy.head(2)) is not None:
        policy.admit(head, 2)
        order.append(head.id)
    assert order == ["chain", "template", "cold", "stranger"]


def test_dlpm_charges_what_was_not_cached_when_that_becomes_known() -> None:
    """Cached tokens that are only told at the end are paid back then."""
    policy = policy_for("dlpm", {"quantum": 1000})
    request = Request("r", "a", 100, 10)
    policy.arrive(request, 0)
    policy.admit(policy.head(0), 0)  # type: ignore[arg-type]
    assert policy.counters() == {"a": 900.0}
    policy.produced(request, 10, 1)
    request.cached_tokens = 60
    policy.finish(request, 1)
    assert policy.counters() == {"a": 940.0}


def ideal_ends(agents: list[tuple[float, float]], total: float) -> list[float]:
    """When agents (work at arrival, cost) end in service given, all sharing equally: by steps."""
    left = [cost for _, cost in agents]
    ends = [0.0] * len(agents)
    now = 0.0
    while any(value > 0 for value in left) and now < total:
        here = [i for i, (came, _) in enumerate(agents) if came <= now and left[i] > 0]
        coming = min((came for came, _ in agents if came > now), default=total)
        if not here:
            now = coming
            continue
        share = min(*(left[i] for i in here), (coming - now) / len(here))
        now += share * len(here)
        for i in here:
            left[i] = 0.0 if left[i] - share < 1e-6 else left[i] - share
            ends[i] = now
    return ends


@pytest.mark.parametrize("seed", range(5))
def test_justitia_ends_no_agent_much_later_than_if_all_shared_equally(seed: int) -> None:
    """At most 2 M D units of service after its ideal end, which is computed here by itself."""
    draw = random.Random(seed)
    memory, longest = 600, 40
    engine = Engine(policy_for("justitia", {"prediction": "oracle"}), memory)
    agents: list[tuple[float, float]] = []
    calls: list[list[Request]] = []
    for step in range(1500):
        if step < 1000 and draw.random() < 0.08:
            prompt, output = draw.randint(5, 150), draw.randint(2, longest)
            many = draw.choice([1, 1, 1, 2, 8])
            mine = [
                Request(
                    f"{len(agents)}-{number}",
                    f"t{draw.randrange(3)}" if many == 1 else "t",
                    prompt,
                    output,
                    interaction=f"i{len(agents)}",
                    call=number,
                    calls=many,
                    output_tokens=output,
                )
                for number in range(1, many + 1)
            ]
            agents.append((engine.work, many * kv_cost(prompt, output)))
            calls.append(mine)
            for request in mine:
                engine.policy.arrive(request, step)
        engine.step()
    while engine.running or len(engine.policy):
        engine.step()
    ends = ideal_ends(agents, engine.work)
    late = [
        max(engine.ended[request] for request in mine) - end
        for mine, end in zip(calls, ends, strict=True)
    ]
    assert len(agents) > 50
    assert max(late) <= 2 * memory * longest
    assert engine.order != sorted(engine.order, key=lambda name: int(name.split("-")[0]))


def test_justitia_lets_a_small_agent_pass_a_large_one_and_no_flood_stop_it() -> None:
    """What is small ends early; but what came long ago is before what is small and new."""
    policy = policy_for("justitia", {"prediction": "limit"})
    policy.arrive(Request("large", "a", 30, 30), 0)
    policy.arrive(Request("small", "b", 10, 10), 0)
    assert policy.head(0).id == "small"  # type: ignore[union-attr]
    for number in range(2000):
        flood = Request(f"f{number}", "b", 10, 10)
        policy.arrive(flood, number)
        head = policy.head(number)
        assert head is not None
        if head.id == "large":
            return
        policy.admit(head, number)
        policy.produced(head, 10, number)
        policy.finish(head, number)
    pytest.fail("the large one was never next")


def test_slo_greedy_serves_whose_requests_were_late() -> None:
    """The tenant with the greater part of late requests, once enough of them are known."""
    policy = policy_for("QUEUE_SLOGreedy", {"latency_slo_s": 1.0})
    for number in range(12):
        for tenant, ends_s in (("late", 2.0), ("early", 0.5)):
            request = Request(f"{tenant}{number}", tenant, 1, 1)
            policy.arrive(request, 0.0 if tenant == "late" else 2.0)
            policy.admit(request, 2.0)
            policy.finish(request, ends_s if tenant == "late" else 2.5)
    for tenant in ("early", "new", "late"):
        policy.arrive(Request(tenant, tenant, 1, 1), 3.0)
    order = []
    while (head := policy.head(3.0)) is not None:
        policy.admit(head, 3.0)
        order.append((head.id, policy.rank(head)))
    assert order == [("late", 0), ("new", 500), ("early", 1000)]
