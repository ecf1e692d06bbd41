"""The gateway's queue: bounds, expiry, refunds and the window, without a clock or a socket."""

from __future__ import annotations

import pytest

from fairshare.gateway.admission import Admission, Bounds, Decision, Refused, State, Ticket
from fairshare.gateway.window import AdaptiveWindow, FixedWindow
from fairshare.scheduling.policies import policy_for
from fairshare.scheduling.policy import Request
from fairshare.wire.exposition import ServerMetrics


class Desk:
    """An admission whose decisions are kept."""

    def __init__(self, policy: str = "vtc", window: int = 1, **bounds: int) -> None:
        self.told: list[tuple[Decision, str]] = []
        self.turns: dict[str, Refused | None] = {}
        limits = {"queued": 100, "queued_per_tenant": 50, "queued_bytes": 10**6, **bounds}
        self.admission = Admission(
            policy_for(policy),
            FixedWindow(window),
            Bounds(ttl_s=60.0, **limits),
            lambda decision, ticket, now_s, refused: self.told.append(
                (decision, ticket.request.id)
            ),
        )

    def arrive(self, name: str, tenant: str = "a", now_s: float = 0.0, size: int = 10) -> Ticket:
        """A request comes."""
        request = Request(name, tenant, 100, 50, arrival_s=now_s)
        ticket = Ticket(request, size, lambda refused: self.turns.update({name: refused}))
        if (refused := self.admission.arrive(ticket, now_s)) is not None:
            self.turns[name] = refused
        return ticket

    def counter(self, tenant: str = "a") -> float:
        """What a tenant has been charged."""
        return self.admission.policy.counters()[tenant]


def test_the_window_is_kept_and_the_next_goes_when_one_ends() -> None:
    """No more are at the server than the window allows, and an end lets the next one go."""
    desk = Desk()
    first = desk.arrive("1")
    desk.arrive("2")
    assert desk.turns == {"1": None}
    desk.admission.finish(first, 1.0)
    assert desk.turns == {"1": None, "2": None}
    assert desk.admission.outstanding == 1


def test_a_failure_before_the_first_token_is_refunded_and_a_later_one_is_not() -> None:
    """The tenant pays nothing for a request of which the server gave nothing."""
    desk = Desk()
    before = desk.arrive("1")
    assert desk.counter() == 100
    desk.admission.fail(before, 1.0)
    assert desk.counter() == 0
    later = desk.arrive("2", now_s=2.0)
    desk.admission.produced(later, 5, 3.0)
    desk.admission.fail(later, 4.0)
    assert desk.counter() == 110


def test_the_servers_count_of_the_prompt_corrects_the_estimate() -> None:
    """An estimated prompt is charged as the server counted it in the end."""
    desk = Desk()
    ticket = desk.arrive("1")
    desk.admission.counted(ticket, 130, 0, 1.0)
    assert desk.counter() == 130
    assert desk.admission.running_tokens == 180
    desk.admission.finish(ticket, 2.0)
    assert desk.admission.running_tokens == 0


def test_queues_are_bounded_in_all_by_tenant_and_by_bytes() -> None:
    """Each bound refuses by its own name, with 429 and a time to come back."""
    for bounds, reason in (
        ({"queued": 1}, "queue_full"),
        ({"queued_per_tenant": 1}, "tenant_queue_full"),
        ({"queued_bytes": 15}, "queue_bytes"),
    ):
        desk = Desk(**bounds)
        for name in "123":
            desk.arrive(name)
        refused = desk.turns["3"]
        assert refused is not None
        assert (refused.status, refused.reason) == (429, reason)
        assert refused.retry_after_s is not None
        assert desk.admission.waiting == 1


def test_retry_after_is_the_time_in_which_half_the_queue_drains() -> None:
    """What is known of the rate at which requests end is told to whom is refused."""
    desk = Desk(queued=4)
    for second in range(10):
        desk.admission.finish(desk.arrive(f"e{second}", now_s=second), second + 0.5)
    for name in "12345":
        desk.arrive(name, now_s=10.5)
    assert desk.admission.waiting == 4
    refused = desk.turns.get("6") or (desk.arrive("6", now_s=10.5), desk.turns["6"])[1]
    assert refused is not None
    assert refused.retry_after_s == 2.0  # ten ends in 10 s; two of four have to leave


@pytest.mark.parametrize(("streamed", "known_s"), [(True, [2.0]), (False, [])])
def test_only_streams_say_when_their_first_token_was_made(
    streamed: bool, known_s: list[float]
) -> None:
    """An answer that comes at its end tells the window nothing of the engine's queue."""
    desk = Desk()
    window = desk.admission.window = AdaptiveWindow()
    ticket = desk.arrive("1")
    ticket.streamed = streamed
    desk.admission.produced(ticket, 5, 2.0)
    assert window._ttft_s == known_s


def test_those_that_waited_too_long_are_refused_with_503() -> None:
    """A request's time to live ends its wait, and only its own."""
    desk = Desk()
    desk.arrive("1")
    desk.arrive("2")
    desk.arrive("3", now_s=30.0)
    desk.admission.expire(61.0)
    refused = desk.turns["2"]
    assert refused is not None
    assert (refused.status, refused.reason) == (503, "expired")
    assert "3" not in desk.turns
    assert desk.admission.waiting == 1


def test_a_client_that_leaves_frees_its_place_wherever_its_request_is() -> None:
    """A withdrawn request waits no more, runs no more, and is withdrawn once."""
    desk = Desk()
    running, queued = desk.arrive("1"), desk.arrive("2")
    desk.arrive("3")
    desk.admission.withdraw(queued, 1.0)
    desk.admission.withdraw(running, 1.0)
    desk.admission.withdraw(running, 1.0)
    assert desk.turns == {"1": None, "3": None}
    assert running.state is State.ENDED
    assert (desk.admission.waiting, desk.admission.outstanding) == (0, 1)
    assert desk.admission.queued_bytes == 0


@pytest.mark.parametrize(("sent", "cost"), [(True, 100), (False, 0)])
def test_a_client_that_leaves_pays_for_what_the_server_has_got(sent: bool, cost: int) -> None:
    """A request that was let go and never sent costs nothing; one that was sent, its prompt."""
    desk = Desk()
    ticket = desk.arrive("1")
    assert ticket.state is State.RUNNING
    ticket.sent = sent
    desk.admission.withdraw(ticket, 1.0)
    assert desk.counter() == cost


def test_a_policys_refusal_is_a_429_with_its_own_time() -> None:
    """A quota of the policy reaches the client with the time that the policy says."""
    desk = Desk("lshare_fair", window=100)
    for number in range(30):
        desk.arrive(str(number))
    refused = [each for each in desk.turns.values() if each is not None]
    assert refused
    assert {(each.status, each.reason) for each in refused} == {(429, "policy")}
    assert all(each.retry_after_s and each.retry_after_s <= 60 for each in refused)


def test_a_window_of_tokens_holds_but_starves_nobody() -> None:
    """Reserved tokens stay under their bound, unless a single request is larger: it goes alone."""
    desk = Desk(window=10, window_tokens=200)
    first = desk.arrive("1")
    desk.arrive("2")
    assert "2" not in desk.turns
    desk.admission.finish(first, 1.0)
    assert desk.turns["2"] is None
    lonely = Desk(window=10, window_tokens=20)
    lonely.arrive("1")
    assert lonely.turns["1"] is None


def test_the_adaptive_window_keeps_one_or_two_waiting_in_the_engine() -> None:
    """It shrinks by what waits beyond two, grows while nobody waits, and else stays."""
    window = AdaptiveWindow(16)
    window.observe(ServerMetrics(running=8, waiting=8, kv_usage=0.5), 16)
    assert window.size == 10
    window.observe(ServerMetrics(running=8, waiting=2, kv_usage=0.5), 10)
    assert window.size == 10
    window.observe(ServerMetrics(running=10, waiting=0, kv_usage=0.5), 10)
    assert window.size == 11
    window.observe(ServerMetrics(running=11, waiting=0, kv_usage=0.99), 11)
    assert window.size == 11, "a full KV cache would only preempt"
    window.observe(ServerMetrics(running=2, waiting=0, kv_usage=0.1), 2)
    assert window.size == 11, "the window was not what kept requests back"


def test_without_metrics_the_window_follows_the_time_to_the_first_token() -> None:
    """Growing times to the first token mean a queue in the engine, and the window shrinks."""
    window = AdaptiveWindow(8)
    window.answered(0.1)
    window.observe(None, 8)
    assert window.size == 9
    for _ in range(3):
        window.answered(0.4)
    window.observe(None, 9)
    assert window.size == 8
