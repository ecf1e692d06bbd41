"""VTC keeps its bounds, charges exactly and shares by weight, where LCF lets others starve."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairshare.scheduling.policies import policy_for
from fairshare.scheduling.policy import Request, SchedulingPolicy, Tenants, Terms
from tests.batch_simulator import INPUT_PRICE, OUTPUT_PRICE, BatchServer, Course

LONGEST_PROMPT = 60
CAPACITY = 400
U = max(INPUT_PRICE * LONGEST_PROMPT, OUTPUT_PRICE * CAPACITY)
proof = settings(max_examples=25, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32)


def load(seed: int, tenants: int = 4, count: int = 120, longest_output: int = 80) -> list[Request]:
    """Random requests of tenants that send in bursts: who waits changes all the time."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        tenant = f"t{min(rng.randrange(tenants), rng.randrange(tenants))}"
        output = rng.randint(1, longest_output)
        made.append(
            Request(
                f"r{number}",
                tenant,
                prompt_tokens=rng.randint(1, LONGEST_PROMPT),
                max_output_tokens=output,
                arrival_s=rng.choice([0.0, 5.0, 20.0, 60.0]) + rng.random() * 10,
                output_tokens=rng.randint(1, output),
            )
        )
    return made


def spread(policy: SchedulingPolicy) -> float:
    """How far the counters of those that wait are apart."""
    counters = policy.counters()
    values = [counters[request.tenant] for request in policy.waiting()]
    return max(values) - min(values) if values else 0.0


@proof
@given(seed=seeds, tenants=st.integers(2, 7), steps_between=st.integers(1, 10))
def test_the_invariant_holds_after_every_admission(
    seed: int, tenants: int, steps_between: int
) -> None:
    """Counters of tenants that wait never differ by more than U, and a lift never lowers one."""
    policy = policy_for("vtc")

    def invariant() -> None:
        assert spread(policy) <= U

    def around_arrival(tenant: str, arrive: Callable[[], None]) -> None:
        before = policy.counters()
        arrive()
        after = policy.counters()
        assert after[tenant] >= before.get(tenant, 0.0)
        assert {**after, tenant: 0} == {**before, tenant: 0}
        invariant()

    server = BatchServer(
        policy,
        CAPACITY,
        steps_between=steps_between,
        after_admission=invariant,
        around_arrival=around_arrival,
    )
    course = server.serve(load(seed, tenants))
    assert len(course.finished) == 120


@proof
@given(seed=seeds, tenants=st.integers(2, 5), steps_between=st.integers(1, 10))
def test_service_stays_within_the_bounds_of_the_paper(
    seed: int, tenants: int, steps_between: int
) -> None:
    """Over all intervals: 2U between tenants that both wait, 4U for any beyond one that does."""
    server = BatchServer(policy_for("vtc"), CAPACITY, steps_between=steps_between)
    assert_bounds(server.serve(load(seed, tenants)), U)


@proof
@given(seed=seeds, slots=st.integers(1, 12))
def test_behind_a_window_the_bound_is_that_of_the_window(seed: int, slots: int) -> None:
    """With W requests at once, and no memory known, U is w_p L_in + w_q W L_out.

    Not the greater of the two: prompts are no part of W L_out, as they are of M.
    """
    server = BatchServer(policy_for("vtc"), float("inf"), max_running=slots, steps_between=1)
    course = server.serve(load(seed, longest_output=20))
    assert_bounds(course, INPUT_PRICE * LONGEST_PROMPT + OUTPUT_PRICE * slots * 20)


def assert_bounds(course: Course, bound: float) -> None:
    """Both bounds over all intervals of a course."""
    for one, other in combinations(course.tenants, 2):
        assert course.widest_gap(one, other) <= 2 * bound
    for ahead, waiter in permutations(course.tenants, 2):
        assert course.widest_lead(ahead, waiter) <= 4 * bound


@proof
@given(seed=seeds)
def test_nobody_starves(seed: int) -> None:
    """A request of a tenant that did not wait is taken before the others have got 2 (n - 1) U.

    That is the latency bound of the paper, in service instead of time.
    """
    flood = [
        Request(f"{tenant}{number}", tenant, 30, 40) for tenant in "abc" for number in range(60)
    ]
    late = Request("late", "late", 30, 40, arrival_s=random.Random(seed).uniform(1, 30))
    policy = policy_for("vtc")
    meanwhile: list[float] = []  # what the others have got, from when it comes until it is taken

    def look() -> None:
        if any(request is late for request in policy.waiting()):
            counters = policy.counters()
            meanwhile.append(sum(counters[tenant] for tenant in "abc"))

    def around_arrival(tenant: str, arrive: Callable[[], None]) -> None:
        arrive()
        look()

    server = BatchServer(policy, CAPACITY, after_admission=look, around_arrival=around_arrival)
    course = server.serve([*flood, late])
    assert late in course.finished
    assert meanwhile[-1] - meanwhile[0] <= 2 * 3 * U


@pytest.mark.parametrize("name", ["vtc", "drr"])
def test_shares_follow_weights(name: str) -> None:
    """Tenants of weights 1 to 4 that always wait get service as 1 to 2 to 3 to 4."""
    weights = {f"t{weight}": float(weight) for weight in (1, 2, 3, 4)}
    tenants = Tenants({tenant: Terms(weight) for tenant, weight in weights.items()})
    requests = [
        Request(f"{tenant}-{number}", tenant, 32, 32) for tenant in weights for number in range(900)
    ]
    server = BatchServer(policy_for(name, None, tenants), CAPACITY, until_s=250.0)
    course = server.serve(requests)
    assert all(course.backlogged[tenant][-1] for tenant in weights)
    got = {tenant: served[-1] for tenant, served in course.served.items()}
    total = sum(got.values())
    for tenant, weight in weights.items():
        assert got[tenant] / total == pytest.approx(weight / 10, rel=0.02)


@proof
@given(seed=seeds)
def test_the_weighted_bound_holds(seed: int) -> None:
    """Service over weight differs by at most twice U over the least weight."""
    weights = {"t0": 1.0, "t1": 0.5, "t2": 3.0, "t3": 8.0}
    tenants = Tenants({tenant: Terms(weight) for tenant, weight in weights.items()})
    server = BatchServer(policy_for("vtc", None, tenants), CAPACITY, weights=weights)
    assert_bounds(server.serve(load(seed)), U / 0.5)


def overload() -> list[Request]:
    """The artifact's suite ``overload``: 1.5 and 3 requests/s of 256 and 256 tokens for 360 s."""
    return [
        Request(f"{tenant}{n}", tenant, 256, 256, arrival_s=phase_s + n / rate)
        for tenant, rate, phase_s in (("light", 1.5, 0.3), ("heavy", 3.0, 0.1))
        for n in range(int(360 * rate))
    ]


def accumulated_gap(policy: str, options: dict[str, str] | None = None) -> float:
    """The largest difference of service accumulated between 60 and 330 s of ``overload``."""
    server = BatchServer(
        policy_for(policy, options), 10_000, batch_tokens=10_000 / 6, until_s=330.0
    )
    requests = overload()
    for request in requests:
        request.output_tokens = 256
    course = server.serve(requests)
    rows = zip(course.times_s, course.served["light"], course.served["heavy"], strict=True)
    gaps = [heavy - light for at_s, light, heavy in rows if at_s >= 60.0]
    return max(abs(gap - gaps[0]) for gap in gaps)


def test_the_published_overload_suite_is_ordered_as_published() -> None:
    """M = 10,000, so 2U = 40,000: VTC far below it, an oracle far below that, FCFS far above."""
    vtc = accumulated_gap("vtc")
    assert vtc < 20_000
    assert accumulated_gap("vtc", {"prediction": "oracle"}) < vtc / 4
    assert accumulated_gap("fcfs") > 100_000


def backlog(policy: SchedulingPolicy, tenant: str, count: int, prompt: int = 10) -> list[Request]:
    """So many requests of a tenant that wait now."""
    made = [Request(f"{tenant}{n}", tenant, prompt, 10) for n in range(count)]
    for request in made:
        policy.arrive(request, 0.0)
    return made


def take(policy: SchedulingPolicy) -> Request:
    """Admit the head."""
    head = policy.head(0.0)
    assert head is not None
    policy.admit(head, 0.0)
    return head


def turns_after_return(policy: SchedulingPolicy) -> str:
    """Who is served when c comes back to a and b, which were served meanwhile."""
    for tenant in "ab":
        backlog(policy, tenant, 40)
    for _ in range(20):
        take(policy)
    backlog(policy, "c", 20)
    return "".join(take(policy).tenant for _ in range(9))


def test_idleness_is_not_saved_up_with_vtc_and_is_with_lcf() -> None:
    """A tenant that comes back takes turns with VTC; with LCF it is served alone."""
    assert sorted(turns_after_return(policy_for("vtc"))) == list("aaabbbccc")
    assert turns_after_return(policy_for("lcf")) == "ccccccccc"


def test_where_nobody_waits_a_tenant_is_lifted_to_the_last_that_left() -> None:
    """Two tenants that never wait at once are not compared by their whole pasts."""
    policy = policy_for("vtc")
    backlog(policy, "a", 1, prompt=500)
    take(policy)
    backlog(policy, "b", 1)
    assert policy.counters() == {"a": 500, "b": 500}


def test_each_token_is_charged_once_whatever_happens() -> None:
    """Preempted work is not charged again; what never began, and what failed, is paid back."""
    policy = policy_for("vtc")
    (request,) = backlog(policy, "a", 1, prompt=100)
    policy.admit(request, 0.0)
    assert policy.counters() == {"a": 100}
    policy.put_back(request, 0.0, preempted=False)
    assert policy.counters() == {"a": 0}
    take(policy)
    policy.produced(request, 3, 0.0)
    policy.counted(request, 90, 0.0)
    assert policy.counters() == {"a": 96}
    policy.put_back(request, 0.0, preempted=True)
    assert policy.counters() == {"a": 96}
    take(policy)
    policy.produced(request, 1, 0.0)
    assert policy.counters() == {"a": 98}
    policy.cancel(request, 0.0, refund=True)
    assert policy.counters() == {"a": 0}


def test_who_is_paid_back_is_next_again() -> None:
    """A counter that falls moves its tenant forward among those that wait."""
    policy = policy_for("vtc")
    backlog(policy, "a", 2, prompt=100)
    backlog(policy, "b", 2)
    failed = take(policy)
    assert [request.tenant for request in (failed, policy.head(0.0)) if request] == ["a", "b"]
    policy.cancel(failed, 0.0, refund=True)
    assert take(policy).tenant == "a"


def test_a_prediction_is_charged_beforehand_and_corrected_at_the_end() -> None:
    """The first answer sets the average, each further one moves it by a fifth."""
    policy = policy_for("vtc_len_predict")
    first, second, third = backlog(policy, "a", 3, prompt=0)
    policy.admit(first, 0.0)
    policy.produced(first, 10, 0.0)
    policy.finish(first, 0.0)
    assert policy.counters() == {"a": 20}
    policy.admit(second, 0.0)
    assert policy.counters() == {"a": 40}
    policy.produced(second, 5, 0.0)
    assert policy.counters() == {"a": 40}
    policy.finish(second, 0.0)
    assert policy.counters() == {"a": 30}
    policy.admit(third, 0.0)
    assert policy.counters() == {"a": 30 + 2 * 9}
    policy.produced(third, 12, 0.0)
    assert policy.counters() == {"a": 30 + 2 * 12}


def test_the_profiled_cost_adds_up_to_its_formula() -> None:
    """Charged token by token, a request costs what the quadratic says of the whole."""
    policy = policy_for("vtc", {"cost": "profiled"})
    (request,) = backlog(policy, "a", 1, prompt=256)
    policy.admit(request, 0.0)
    for _ in range(128):
        policy.produced(request, 1, 0.0)
    x, y = 256, 128
    cost = 0.21001891 * x + 0.10075395 * y + 0.0039868 * x * y + 0.00324733 * y * y + 1.14601454
    assert policy.counters()["a"] == pytest.approx(cost)


def test_cached_prompt_tokens_cost_nothing_where_that_is_asked_for() -> None:
    """``charge_cached`` off charges what was not in the prefix cache, also once it is counted."""
    policy = policy_for("vtc", {"charge_cached": False})
    (request,) = backlog(policy, "a", 1, prompt=100)
    request.cached_tokens = 40
    policy.admit(request, 0.0)
    assert policy.counters() == {"a": 60}
    request.cached_tokens = 70
    policy.counted(request, 110, 0.0)
    assert policy.counters() == {"a": 40}


def test_forgotten_counters_change_no_order() -> None:
    """Of many tenants that came once, hardly any is remembered, and the lift stands in for it."""
    policy = policy_for("vtc")
    backlog(policy, "stays", 6_000, prompt=1)
    for number in range(5_000):
        backlog(policy, f"t{number}", 1, prompt=1)
        while (taken := take(policy)).tenant == "stays":
            policy.finish(taken, 0.0)
        policy.finish(taken, 0.0)
    kept = policy.counters()
    assert len(kept) < 3_000
    backlog(policy, "t7", 1, prompt=1)
    assert policy.counters()["t7"] == pytest.approx(kept["stays"])
