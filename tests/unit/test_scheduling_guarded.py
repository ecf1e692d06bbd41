"""A policy that makes mistakes: requests go on in order of arrival, and none is lost."""

from __future__ import annotations

import pytest

from fairshare.scheduling.fcfs import Fcfs
from fairshare.scheduling.guarded import Guarded
from fairshare.scheduling.policies import policy_for
from fairshare.scheduling.policy import Refusal, Request

EVENTS = ("arrive", "head", "admit", "put_back", "produced", "counted", "finish", "cancel", "rank")


class Broken(Fcfs):
    """Serves the last first, until it is asked what it cannot do."""

    def __init__(self, event: str) -> None:
        super().__init__()
        setattr(self, event, self._fail)

    def _fail(self, *_args: object, **_options: object) -> Refusal | None:
        raise ZeroDivisionError("a counter of nothing")


@pytest.mark.parametrize("event", EVENTS)
def test_a_policys_mistake_loses_no_request(event: str) -> None:
    """Whatever fails, all that waits is served once, first come first, and it is said once."""
    said: list[str] = []
    policy = Guarded(Broken(event), said.append)
    requests = [Request(name, "a", 5, 5) for name in "abcde"]
    for each in requests:
        assert policy.arrive(each, 0.0) is None
    order = []
    for _ in range(2):
        head = policy.head(1.0)
        assert head is not None
        policy.admit(head, 1.0)
        policy.rank(head)
        policy.counted(head, 6, 1.0)
        policy.produced(head, 1, 1.0)
        order.append(head)
    policy.put_back(order.pop(), 2.0, preempted=True)
    policy.cancel(requests[4], 2.0)
    policy.finish(order[0], 2.0)
    while (head := policy.head(3.0)) is not None:
        policy.admit(head, 3.0)
        policy.finish(head, 4.0)
        order.append(head)
    assert "".join(each.id for each in order) == "abcd"
    assert len(policy) == len(list(policy.waiting())) == 0
    assert len(said) == 1
    assert "a counter of nothing" in said[0]
    assert policy.error == said[0]


def test_a_head_that_does_not_wait_is_a_mistake() -> None:
    """A policy that names one who runs already is not followed any more."""
    broken = Fcfs()
    said: list[str] = []
    policy = Guarded(broken, said.append)
    first, second = Request("1", "a", 5, 5), Request("2", "a", 5, 5)
    policy.arrive(first, 0.0)
    policy.arrive(second, 0.0)
    policy.admit(first, 0.0)
    broken._waiting.prepend(first)
    assert policy.head(1.0) is second
    assert len(said) == 1


def test_a_policy_without_mistakes_is_followed() -> None:
    """Its order, its refusals and its counters are handed on."""
    policy = Guarded(policy_for("vtc"), pytest.fail)
    requests = [Request(name, name[0], 10, 5) for name in ("a1", "a2", "b1")]
    for each in requests:
        policy.arrive(each, 0.0)
    order = []
    while (head := policy.head(0.0)) is not None:
        policy.admit(head, 0.0)
        order.append(head.id)
    assert order == ["a1", "b1", "a2"]
    assert policy.counters() == {"a": 20.0, "b": 10.0}
    refusing = Guarded(policy_for("rpm", {"limit": 1}), pytest.fail)
    assert refusing.arrive(requests[0], 0.0) is None
    assert refusing.arrive(requests[1], 0.0) is not None
    assert len(refusing) == 1


def test_what_the_caller_does_wrong_is_no_mistake_of_the_policy() -> None:
    """A request that is told twice, or put back without running, is the caller's error."""
    policy = Guarded(policy_for("vtc"), pytest.fail)
    request = Request("1", "a", 5, 5)
    policy.arrive(request, 0.0)
    with pytest.raises(ValueError, match="is here already"):
        policy.arrive(request, 0.0)
    with pytest.raises(ValueError, match="does not run"):
        policy.put_back(request, 0.0, preempted=True)
    policy.admit(request, 0.0)
    with pytest.raises(ValueError, match="does not wait"):
        policy.admit(request, 0.0)
    assert policy.error is None
