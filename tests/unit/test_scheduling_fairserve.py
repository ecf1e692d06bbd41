"""FairServe: what is charged, who goes first, who is thrown out, and no chain broken half-way."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import count

import pytest

from fairshare.scheduling.policies import policy_for
from fairshare.scheduling.policy import Request, SchedulingPolicy, Tenants, Terms

CHAIN = 4


def call(name: str, user: str, number: int, calls: int = CHAIN, **more: object) -> Request:
    """Call ``number`` of interaction ``name``: 200 tokens in, half of them the template, 20 out."""
    tokens = {"prompt_tokens": 200, "max_output_tokens": 20, "system_tokens": 100, "app": "agent"}
    return Request(
        f"{name}-{number}",
        user,
        interaction=name,
        call=number,
        calls=calls,
        **{**tokens, **more},  # type: ignore[arg-type]
    )


@dataclass
class Platform:
    """A server of ``slots`` requests, a token each in a step of 0.1 s, and users with chains.

    The next call of an interaction comes when the one before is answered; none comes after a
    refusal.
    """

    policy: SchedulingPolicy
    slots: int = 4
    step_s: float = 0.1
    now_s: float = 0.0
    running: list[Request] = field(default_factory=list)
    admitted: int = 0
    refused: list[Request] = field(default_factory=list)
    done: set[str] = field(default_factory=set)

    def send(self, request: Request) -> None:
        """It comes."""
        if self.policy.arrive(request, self.now_s) is not None:
            self.refused.append(request)

    def step(self) -> None:
        """Fill the slots, make a token for each, and send the calls that follow answers."""
        while (head := self.policy.head(self.now_s)) is not None:
            if len(self.running) == self.slots:
                self.refused += [each for each, _ in self.policy.does_not_fit(self.now_s)]
                break
            self.policy.admit(head, self.now_s)
            self.admitted += 1
            self.running.append(head)
        self.now_s += self.step_s
        for request in list(self.running):
            self.policy.produced(request, 1, self.now_s)
            if request.produced == request.max_output_tokens:
                self.running.remove(request)
                self.policy.finish(request, self.now_s)
                assert request.interaction is not None
                if request.call == request.calls:
                    self.done.add(request.interaction)
                else:
                    self.send(call(request.interaction, request.tenant, request.call + 1))

    def overload(self, steps: int = 3000) -> None:
        """A heavy user begins a chain in every second step, nine others one in 30; then it drains.

        There is room for one call in five steps.
        """
        fresh = count()
        for step in range(steps):
            if step % 2 == 0:
                self.send(call(f"i{next(fresh)}", "heavy", 1))
            if step % 30 == 0:
                for user in range(9):
                    self.send(call(f"i{next(fresh)}", f"light{user}", 1))
            self.step()
        while self.running or len(self.policy):
            self.step()

    def half_finished(self) -> int:
        """Interactions that were begun and then refused."""
        return sum(request.call > 1 for request in self.refused)


def test_no_interaction_is_left_half_finished_where_rpm_leaves_some() -> None:
    """Under overload, with as much work admitted, a quota breaks chains and FairServe none."""
    rpm = Platform(policy_for("rpm", {"limit": 160}))
    rpm.overload()
    fair = Platform(policy_for("fairserve", {"user_limit": 60}))
    fair.overload()
    assert rpm.half_finished() > 0
    assert fair.half_finished() == 0
    assert fair.refused
    assert fair.admitted == pytest.approx(rpm.admitted, rel=0.02)
    begun = {request.interaction for request in fair.refused} & fair.done
    assert not begun  # each interaction was answered whole, or refused whole
    assert len(fair.done) + len(fair.refused) == 1500 + 900


@pytest.mark.parametrize(
    ("name", "throttles"),
    [("fs_fair_interaction_limit", False), ("fs_fair_interaction_limit_worpmdebt", True)],
)
def test_with_debts_no_chain_is_broken_either(name: str, throttles: bool) -> None:
    """Debts only put off the throttling of first calls: for ever, where all that is served pays."""
    platform = Platform(policy_for(name))
    platform.overload(1500)
    assert platform.half_finished() == 0
    assert bool(platform.refused) is throttles


def test_limits_blind_to_interactions_do_break_chains() -> None:
    """The test above can fail: the artifact's throttling of any call under overload breaks some."""
    platform = Platform(policy_for("fs_fair_overload_limit"))
    platform.overload(1500)
    assert platform.half_finished() > 0


def thrown(policy: SchedulingPolicy, now_s: float = 0.0) -> list[str]:
    """Who is thrown out when the head does not fit."""
    return [request.id for request, _ in policy.does_not_fit(now_s)]


def test_nobody_is_throttled_while_there_is_room() -> None:
    """The limit is looked at under overload alone, and then one first call is thrown out."""
    policy = policy_for("fairserve", {"user_limit": 2})
    for number in range(4):
        assert policy.arrive(call(f"i{number}", "a", 1), 0.0) is None
    head = policy.head(0.0)
    assert head is not None
    policy.admit(head, 0.0)
    refusals = policy.does_not_fit(1.0)
    assert [request.id for request, _ in refusals] == ["i1-1"]
    assert refusals[0][1].retry_after_s == 59.0
    assert "'a' sent 2 requests within 60 s" in refusals[0][1].reason
    assert len(policy) == 2


def test_the_window_ends_with_the_newest_arrival() -> None:
    """Arrivals a minute older than the newest count no more, however many there were."""
    policy = policy_for("fairserve", {"user_limit": 2})
    for number, now_s in enumerate((0.0, 1.0, 2.0, 63.0)):
        policy.arrive(call(f"i{number}", "a", 1), now_s)
    assert thrown(policy, 63.0) == []


def test_an_application_has_a_limit_of_its_own() -> None:
    """Users within their limits are throttled for an application that all of them call."""
    policy = policy_for("fairserve", {"app_limit": 2})
    for user in "abc":
        policy.arrive(call(f"i{user}", user, 1), 0.0)
    assert thrown(policy) == ["ia-1"]


def test_later_calls_go_with_their_first_and_only_with_it() -> None:
    """What waits of a thrown interaction leaves with it; later calls are refused until a retry."""
    policy = policy_for("fairserve", {"user_limit": 1})
    for number in (1, 2):
        policy.arrive(call("i", "a", number), 0.0)
    policy.arrive(call("j", "a", 3), 0.0)
    assert thrown(policy) == ["i-1", "i-2"]
    assert policy.arrive(call("i", "a", 3), 1.0) is not None
    assert thrown(policy) == []  # j's third call is delayed at most
    assert policy.arrive(call("i", "a", 1), 90.0) is None
    assert policy.arrive(call("i", "a", 2), 91.0) is None


def test_what_was_begun_is_not_thrown_out() -> None:
    """A first call that was preempted waits for room like any later call."""
    policy = policy_for("fairserve", {"user_limit": 1})
    first = call("i", "a", 1)
    policy.arrive(first, 0.0)
    policy.admit(first, 0.0)
    policy.arrive(call("j", "a", 1), 0.0)
    policy.put_back(first, 1.0, preempted=True)
    assert policy.head(1.0) is first
    assert thrown(policy, 1.0) == []


def test_at_arrival_the_limit_counts_what_was_let_in() -> None:
    """As many as the limit in any minute, and the answer says when the next may come."""
    policy = policy_for("fs_fair_user_limit", {"user_limit": 2})
    came = [policy.arrive(call(f"i{n}", "a", 1), now_s) for n, now_s in enumerate((0, 10, 20, 59))]
    assert [refusal is None for refusal in came] == [True, True, False, False]
    assert came[2] is not None
    assert came[2].retry_after_s == 40.0
    assert policy.arrive(call("late", "a", 1), 60.0) is None
    assert policy.arrive(call("other", "b", 1), 60.0) is None


def test_rpm_debt_puts_off_the_first_refusal() -> None:
    """One debt for each request, up to the limit and one more; served requests pay back."""
    for name, served_pay in (
        ("fs_fair_interaction_limit", True),
        ("fs_fair_interaction_limit_worpmdebt", False),
    ):
        policy = policy_for(name, {"user_limit": 1, "app_limit": 0})
        for number in range(6):
            policy.arrive(call(f"i{number}", "a", 1), 0.0)
        assert thrown(policy) == []  # debt 1
        assert thrown(policy) == []  # the same request again: still 1
        head = policy.head(0.0)
        assert head is not None
        policy.admit(head, 0.0)
        assert thrown(policy) == []  # 1 if it was paid back, else 2, above the limit
        policy.admit(policy.head(0.0), 0.0)  # type: ignore[arg-type]
        assert (thrown(policy) == []) is served_pay


def test_service_debt_lets_the_next_user_go_first_once() -> None:
    """A later call that did not fit costs its user one turn."""
    policy = policy_for("fs_fair_interaction_limit")
    policy.arrive(call("i", "a", 2), 0.0)
    policy.arrive(call("j", "b", 1), 0.0)
    policy.arrive(call("k", "b", 1), 0.0)
    assert policy.head(0.0).id == "i-2"  # type: ignore[union-attr]
    assert thrown(policy) == []
    head = policy.head(0.0)
    assert head is not None
    assert head.id == "j-1"
    policy.admit(head, 0.0)
    assert policy.head(0.0).id == "i-2"  # type: ignore[union-attr]


def served(
    policy: SchedulingPolicy, request: Request, produced: int
) -> dict[str, dict[str, float]]:
    """The counters after each of its events."""
    policy.arrive(request, 0.0)
    policy.admit(request, 0.0)
    after = {"admission": policy.counters()}
    policy.produced(request, produced, 1.0)
    after["tokens"] = policy.counters()
    policy.finish(request, 1.0)
    after["end"] = policy.counters()
    return after


@pytest.mark.parametrize(
    ("counter", "admission", "tokens", "end"),
    [
        # input 100 of 100, system 100 of 50, output 20 of 25 at 2 each
        ("components", 3.0, 3.0 + 2 * 20 / 25, 3.0 + 2 * 20 / 25),
        ("expectation", 0.0, 0.0, 240 / 200),  # (100 + 100 + 2 20) / (100 + 50 + 2 25)
        ("precharged", 1.0, 1.0, 240 / 200),
    ],
)
def test_service_is_counted_in_typical_requests(
    counter: str, admission: float, tokens: float, end: float
) -> None:
    """Each counter charges when and what its definition says, divided by the weight."""
    policy = policy_for(
        "fairserve",
        {"counter": counter, "apps": "agent=100/50/25"},
        Tenants({"b": Terms(weight=2.0)}),
    )
    for user, weight in (("a", 1.0), ("b", 2.0)):
        after = served(policy, call(f"i{user}", user, 1, 1), 20)
        found = [after[event].get(user, 0.0) for event in ("admission", "tokens", "end")]
        lift = policy.counters()["a"] if user == "b" else 0.0  # b comes after a, who left
        wanted = [lift + value / weight for value in (admission, tokens, end)]
        assert found == pytest.approx(wanted)


def test_what_is_typical_is_learned() -> None:
    """Without numbers given, an application's mean request costs 1, whatever its size."""
    policy = policy_for("fairserve")
    for number in range(5):
        for user, prompt, produced in (("a", 4000, 20), ("b", 110, 7)):
            request = call(f"{user}{number}", user, 1, 1, app=user, prompt_tokens=prompt)
            after = served(policy, request, produced)
            assert after["end"][user] - after["admission"][user] == pytest.approx(1.0)


def test_a_user_who_cancels_pays_for_what_he_got() -> None:
    """Hanging up before the end is no way to be served for nothing, a failed server is."""
    for refund, cost in ((False, 240 / 200), (True, 0.0)):
        policy = policy_for("fairserve", {"apps": "agent=100/50/25"})
        request = call("i", "a", 1)
        policy.arrive(request, 0.0)
        policy.admit(request, 0.0)
        policy.produced(request, 20, 1.0)
        policy.cancel(request, 1.0, refund=refund)
        assert policy.counters()["a"] == pytest.approx(cost)


@pytest.mark.parametrize(
    ("expectation", "lead", "first"),
    [("never", 8, "b"), ("bounded", 8, "a"), ("bounded", 0.5, "b"), ("always", 0.5, "a")],
)
def test_a_user_with_a_running_chain_goes_first_within_the_lead(
    expectation: str, lead: float, first: str
) -> None:
    """Chains are finished first, but not by more than the lead unless that is asked for."""
    options = {"expectation": expectation, "lead": lead, "apps": "agent=100/100/20"}
    policy = policy_for("fairserve", options)
    policy.arrive(call("j", "b", 1), 0.0)
    done, chained = call("h", "a", 1, 1), call("i", "a", 1)
    for request in (done, chained):
        policy.arrive(request, 0.0)
        policy.admit(request, 0.0)
    policy.produced(done, 20, 1.0)
    policy.finish(done, 1.0)  # a is 1 ahead of b
    policy.arrive(call("k", "a", 1), 1.0)
    head = policy.head(1.0)
    assert head is not None
    assert head.tenant == first


@pytest.mark.parametrize("counter", ["components", "expectation", "precharged"])
@pytest.mark.parametrize(("expectation", "lead"), [("never", 0.0), ("bounded", 3.0)])
def test_waiting_users_differ_by_a_batch_and_the_lead(
    counter: str, expectation: str, lead: float
) -> None:
    """The promised bound: the lead and what the requests of one batch cost."""
    slots = 4
    options = {"counter": counter, "expectation": expectation, "lead": lead}
    policy = policy_for("fairserve", {**options, "apps": "agent=100/100/20"})
    platform = Platform(policy, slots)
    costs = {"components": 4.0, "expectation": 1.0, "precharged": 1.0}
    waiting = {user: deque(range(400)) for user in ("chains", "single", "other")}
    for user, numbers in waiting.items():
        for number in numbers:
            platform.send(call(f"{user}{number}", user, 1, CHAIN if user == "chains" else 1))
    widest = 0.0
    for _ in range(2000):
        platform.step()
        counters = policy.counters()
        widest = max(widest, max(counters.values()) - min(counters.values()))
    assert 0 < widest <= lead + slots * costs[counter]


def test_limits_that_are_needed_are_asked_for() -> None:
    """A throttling that would do nothing without a limit, and unreadable apps, are refused."""
    with pytest.raises(ValueError, match="needs a user_limit or an app_limit"):
        policy_for("fairserve", {"throttle": "arrival"})
    with pytest.raises(ValueError, match="must be like chat=200/100/50, not 'chat=2/x'"):
        policy_for("fairserve", {"apps": "chat=2/x"})
