"""Quotas are exact at the edges of their windows, and say when it may be tried again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairshare.scheduling.policies import policy_for
from fairshare.scheduling.policy import Request, SchedulingPolicy

gaps_s = st.lists(st.integers(0, 40).map(lambda n: n / 2), min_size=1, max_size=60)


def arrive(policy: SchedulingPolicy, now_s: float, tenant: str = "a", prompt: int = 1) -> float:
    """A new request; the seconds after which it may be tried again, -1 if it was let in."""
    refusal = policy.arrive(Request("r", tenant, prompt, 10), now_s)
    if refusal is None:
        return -1
    assert tenant in refusal.reason
    assert refusal.retry_after_s is not None
    return refusal.retry_after_s


def use(policy: SchedulingPolicy, now_s: float, prompt: int, tenant: str = "a") -> Request:
    """A new request that is served at once."""
    request = Request("r", tenant, prompt, 10)
    assert policy.arrive(request, now_s) is None
    policy.admit(request, now_s)
    return request


def test_requests_are_counted_in_a_window_that_slides() -> None:
    """The third within 60 s is refused until exactly 60 s after the first."""
    policy = policy_for("rpm", {"limit": 2})
    assert arrive(policy, 10.0) == -1
    assert arrive(policy, 30.0) == -1
    assert arrive(policy, 40.0) == 30.0
    assert arrive(policy, 69.75) == 0.25
    assert arrive(policy, 40.0 + 30.0) == -1
    assert arrive(policy, 70.0) == 20.0
    assert arrive(policy, 70.0, tenant="b") == -1


@settings(max_examples=50, deadline=None, derandomize=True)
@given(gaps=gaps_s, limit=st.integers(1, 5))
def test_requests_let_in_are_all_that_the_quota_allows(gaps: list[float], limit: int) -> None:
    """A request is let in just if fewer than the limit were in the last 60 s."""
    policy = policy_for("rpm", {"limit": limit})
    now_s, accepted = 0.0, [-100.0]
    for gap_s in gaps:
        now_s += gap_s
        recent = [at_s for at_s in accepted if now_s - at_s < 60]
        retry_after_s = arrive(policy, now_s)
        if len(recent) < limit:
            assert retry_after_s == -1
            accepted.append(now_s)
        else:
            assert retry_after_s == recent[0] + 60 - now_s
        assert policy.counters() == {"a": min(limit, len(recent) + (len(recent) < limit))}


def test_tokens_are_counted_in_a_window_that_slides() -> None:
    """Prompts count as they are served, answers as they come, each for exactly 60 s."""
    policy = policy_for("tpm", {"limit": 100})
    request = use(policy, 5.0, prompt=70)
    assert arrive(policy, 9.0) == -1
    policy.produced(request, 30, 20.0)
    assert arrive(policy, 21.0) == 44.0
    assert arrive(policy, 21.0, tenant="b") == -1
    assert arrive(policy, 64.75) == 0.25
    assert arrive(policy, 65.0) == -1
    assert policy.counters() == {"a": 30}
    use(policy, 65.0, prompt=70)
    assert arrive(policy, 79.5) == 0.5
    assert arrive(policy, 80.0) == -1


@settings(max_examples=50, deadline=None, derandomize=True)
@given(uses=st.lists(st.tuples(st.integers(0, 40).map(lambda n: n / 2), st.integers(1, 60))))
def test_tokens_let_in_are_all_that_the_quota_allows(uses: list[tuple[float, int]]) -> None:
    """A request is let in just if fewer tokens than the limit were used in the last 60 s.

    Those used within one second leave together, when the last of them does.
    """
    policy = policy_for("tpm", {"limit": 100})
    now_s = first_s = 0.0
    counted: list[list[float]] = []  # when they leave, and how many
    for gap_s, tokens in uses:
        now_s += gap_s
        left = sorted((leaves_s, n) for leaves_s, n in counted if leaves_s > now_s)
        total = sum(n for _, n in left)
        request = Request("r", "a", tokens, 10)
        refusal = policy.arrive(request, now_s)
        assert (refusal is None) == (total < 100)
        if refusal is not None:
            while total >= 100:
                leaves_s, n = left.pop(0)
                total -= n
            assert refusal.retry_after_s == leaves_s - now_s
            continue
        policy.admit(request, now_s)
        if counted and now_s - first_s < 1.0:
            counted[-1] = [now_s + 60, counted[-1][1] + tokens]
        else:
            first_s = now_s
            counted.append([now_s + 60, tokens])


def test_tokens_that_were_not_used_do_not_count() -> None:
    """What never began and what failed is taken back where it was counted; preempted work is not.

    So nothing is taken off later windows, in which it is not.
    """
    policy = policy_for("tpm", {"limit": 100})
    request = use(policy, 0.0, prompt=80)
    policy.produced(request, 10, 1.0)
    policy.put_back(request, 2.0, preempted=True)
    policy.admit(request, 3.0)
    assert policy.counters() == {"a": 90}
    policy.counted(request, 85, 4.0)
    assert policy.counters() == {"a": 95}
    policy.counted(request, 60, 5.0)
    assert policy.counters() == {"a": 70}
    policy.cancel(request, 55.0, refund=True)
    assert policy.counters() == {"a": 0}
    use(policy, 59.0, prompt=90)
    assert arrive(policy, 61.0, prompt=5) == -1
    assert policy.counters() == {"a": 90}
    use(policy, 61.0, prompt=10)
    assert arrive(policy, 62.0) == 57.0


def test_what_others_of_the_tenant_used_before_still_counts() -> None:
    """What is taken back is taken from the time at which it was counted, and not from earlier."""
    policy = policy_for("tpm", {"limit": 100})
    use(policy, 0.0, prompt=50)
    failed = use(policy, 30.0, prompt=50)
    policy.cancel(failed, 31.0, refund=True)
    use(policy, 40.0, prompt=60)
    assert arrive(policy, 41.0) == 19.0
    assert arrive(policy, 60.0) == -1
    assert policy.counters() == {"a": 60}


@pytest.mark.parametrize("name", ["rpm", "tpm"])
def test_tenants_that_stopped_are_forgotten(name: str) -> None:
    """Of who sent nothing for a whole window, nothing is kept."""
    policy = policy_for(name)
    for number in range(100):
        use(policy, 0.0, prompt=1, tenant=f"t{number}")
    use(policy, 60.0, prompt=1, tenant="new")
    assert set(policy.counters()) == {"new"}
