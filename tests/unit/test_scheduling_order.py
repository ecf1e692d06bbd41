"""The order in which simple policies serve."""

from __future__ import annotations

import random

import pytest

from fairshare.scheduling.policies import policy_for
from fairshare.scheduling.policy import Request, SchedulingPolicy, Tenants, Terms


def send(policy: SchedulingPolicy, *requests: Request) -> None:
    """All come now."""
    for request in requests:
        assert policy.arrive(request, 0.0) is None


def take(policy: SchedulingPolicy) -> Request:
    """Admit the head."""
    head = policy.head(0.0)
    assert head is not None
    policy.admit(head, 0.0)
    return head


def rest(policy: SchedulingPolicy) -> list[str]:
    """All that wait, as they are served."""
    return [take(policy).id for _ in range(len(policy))]


def requests(*ids: str) -> list[Request]:
    """One for each id; its first letter is the tenant."""
    return [Request(id_, id_[0], 10, 10) for id_ in ids]


def test_first_come_first_served() -> None:
    """The order of arrival; what was put back goes first."""
    policy = policy_for("fcfs")
    send(policy, *requests("a1", "a2", "b1", "a3"))
    first, second = take(policy), take(policy)
    policy.put_back(second, 0.0, preempted=True)
    policy.put_back(first, 0.0, preempted=True)
    assert rest(policy) == ["a1", "a2", "b1", "a3"]


def test_round_robin_takes_turns() -> None:
    """One of each tenant in turn; who has none is left out, who comes goes to the end."""
    policy = policy_for("round-robin")
    send(policy, *requests("a1", "a2", "a3", "b1", "b2", "c1"))
    assert [take(policy).id for _ in range(4)] == ["a1", "b1", "c1", "a2"]
    send(policy, *requests("d1", "c2"))
    assert rest(policy) == ["b2", "a3", "d1", "c2"]


def test_a_tenant_whose_last_request_is_gone_has_no_turn() -> None:
    """Its place in the ring goes with its last request, however that leaves."""
    policy = policy_for("round-robin")
    gone, *others = requests("a1", "b1", "b2")
    send(policy, gone, *others)
    policy.cancel(gone, 0.0)
    assert rest(policy) == ["b1", "b2"]


def test_a_turn_that_was_put_back_is_not_lost() -> None:
    """The tenant of what is put back has its turn again."""
    policy = policy_for("round-robin")
    send(policy, *requests("a1", "b1", "a2", "b2"))
    policy.put_back(take(policy), 0.0, preempted=False)
    assert rest(policy) == ["a1", "b1", "a2", "b2"]


def test_the_earliest_deadline_goes_first() -> None:
    """A request's own deadline counts, else its tenant's promise; without either it goes last."""
    policy = policy_for("edf", None, Tenants({"b": Terms(slo_e2e_s=3.0)}))
    none, promised, own = requests("a1", "b1", "a2")
    own.deadline_s = 2.5
    late = Request("b2", "b", 10, 10, arrival_s=1.0)
    send(policy, none, late, promised, own)
    assert rest(policy) == ["a2", "b1", "b2", "a1"]
    assert policy.rank(own) < policy.rank(promised) < policy.rank(none)


def test_the_shortest_job_goes_first() -> None:
    """By prompt and limit, or by the tenant's average; of equal ones that which came first."""
    policy = policy_for("sjf")
    long, short, same = Request("a1", "a", 10, 50), *requests("b1", "c1")
    send(policy, long, short, same)
    assert rest(policy) == ["b1", "c1", "a1"]
    policy = policy_for("sjf", {"prediction": "average"})
    send(policy, *requests("a0", "b0"))
    for tokens in (2, 8):
        request = take(policy)
        policy.produced(request, tokens, 0.0)
        policy.finish(request, 0.0)
    send(policy, *requests("c1", "b1", "a1"))
    assert rest(policy) == ["a1", "b1", "c1"]


def test_a_guess_is_made_once() -> None:
    """The rank of a request is the length by which it was queued, however wrong."""
    policy = policy_for("sjf", {"prediction": "oracle", "error_fraction": 0.5, "input_price": 0})
    made = [Request(f"r{n}", "a", 1, 1000, output_tokens=500) for n in range(50)]
    send(policy, *made)
    ranks = [policy.rank(take(policy)) for _ in made]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) > 10


def test_deficits_are_paid_off_in_rounds() -> None:
    """In a round each may be served while it is in credit; a debt of n quanta costs n rounds."""
    policy = policy_for("drr", {"quantum": 20})
    send(policy, *requests("a1", "a2", "a3", "a4", "b1", "b2", "b3", "b4"))
    first = [take(policy) for _ in range(4)]
    assert [request.id for request in first] == ["a1", "a2", "b1", "b2"]
    policy.produced(first[0], 30, 0.0)
    assert policy.counters() == {"a": -60, "b": 0}
    assert rest(policy) == ["b3", "b4", "a3", "a4"]


def test_deficits_are_charged_once_and_paid_back() -> None:
    """Preempted work is paid for once, and what never began or failed is given back."""
    policy = policy_for("drr", {"quantum": 100})
    send(policy, *requests("a1"))
    request = take(policy)
    policy.put_back(request, 0.0, preempted=False)
    take(policy)
    policy.produced(request, 3, 0.0)
    policy.counted(request, 14, 0.0)
    assert policy.counters() == {"a": 80}
    policy.put_back(request, 0.0, preempted=True)
    take(policy)
    assert policy.counters() == {"a": 80}
    policy.cancel(request, 0.0, refund=True)
    assert policy.counters() == {"a": 100}


def test_a_debt_of_any_depth_is_looked_at_once() -> None:
    """However little a quantum is worth beside a debt, the head is found at once."""
    policy = policy_for("drr", {"quantum": 1}, Tenants({}, Terms(weight=1e-6)))
    send(policy, *requests("a1", "a2"))
    debtor = take(policy)
    policy.produced(debtor, 10**12, 0.0)
    assert rest(policy) == ["a2"]


def test_idle_tenants_save_no_credit_and_keep_their_debt() -> None:
    """Rounds that pass without a tenant pay off what it owes, and nothing more."""
    policy = policy_for("drr", {"quantum": 20})
    debtor, idle = requests("a1", "b1")
    send(policy, debtor, idle)
    rest(policy)
    policy.produced(debtor, 500, 0.0)
    send(policy, *requests(*(f"c{n}" for n in range(60))))
    for _ in range(40):  # 20 rounds of c alone
        take(policy)
    send(policy, *requests("a2", "b2", "b3", "b4"))
    assert policy.counters()["b"] <= 20
    assert policy.counters()["a"] < -500
    assert rest(policy)[-1] == "a2"


@pytest.mark.parametrize("seed", range(5))
def test_sizes_keep_their_order_whoever_leaves(seed: int) -> None:
    """Among many comings and goings the least is always first."""
    rng = random.Random(seed)
    policy = policy_for("sjf")
    waiting: dict[str, Request] = {}
    for number in range(2_000):
        if waiting and rng.random() < 0.48:
            gone = waiting.pop(rng.choice(list(waiting)))
            policy.cancel(gone, 0.0)
        else:
            request = Request(f"r{number}", "a", rng.randrange(1000), 0)
            waiting[request.id] = request
            send(policy, request)
        head = policy.head(0.0)
        least = min((r.prompt_tokens for r in waiting.values()), default=None)
        assert (None if head is None else head.prompt_tokens) == least
