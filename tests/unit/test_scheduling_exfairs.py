"""ExFairS: rounds exchange priorities for credit, the queue lets some be overtaken."""

from __future__ import annotations

import random

import pytest

from fairshare.scheduling.exfairs_queue import OvertakingQueue
from fairshare.scheduling.exfairs_rounds import Exchange, Standing, exchange
from fairshare.scheduling.policies import policy_for
from fairshare.scheduling.policy import Request, SchedulingPolicy, Tenants, Terms


def request(number: int, tenant: str = "a", prompt: int = 10) -> Request:
    """A request of 10 output tokens."""
    return Request(f"r{number}", tenant, prompt, 10)


class Line:
    """A server of one request at a time, each taking ``each_s``, and a policy before it."""

    def __init__(self, policy: SchedulingPolicy, each_s: float) -> None:
        self.policy = policy
        self.each_s = each_s
        self.now_s = 0.0
        self.order: list[Request] = []
        self.waited_s: dict[Request, float] = {}
        self.ranks: dict[Request, int] = {}
        self._came: dict[Request, float] = {}

    def arrive(self, one: Request) -> None:
        """It comes now."""
        self._came[one] = self.now_s
        assert self.policy.arrive(one, self.now_s) is None

    def serve(self) -> bool:
        """Serve the next one, if there is one."""
        head = self.policy.head(self.now_s)
        if head is None:
            return False
        self.policy.admit(head, self.now_s)
        self.ranks[head] = self.policy.rank(head)
        self.now_s += self.each_s
        self.policy.produced(head, head.max_output_tokens, self.now_s)
        self.policy.finish(head, self.now_s)
        self.order.append(head)
        self.waited_s[head] = self.now_s - self._came[head]
        return True


TERMS = Tenants({"hurt": Terms(slo_e2e_s=2.0), "fine": Terms(slo_e2e_s=1000.0)})


def rounds(policy: SchedulingPolicy, count: int) -> tuple[Line, list[list[Request]]]:
    """In each round of 10 s 12 requests of ``fine`` come, then 4 of ``hurt``; 0.6 s each."""
    line = Line(policy, each_s=0.6)
    sent: list[list[Request]] = []
    for number in range(count):
        line.now_s = max(line.now_s, number * 10.0)
        batch = [request(100 * number + i, "fine") for i in range(12)]
        batch += [request(100 * number + 50 + i, "hurt") for i in range(4)]
        for one in batch:
            line.arrive(one)
        sent.append(batch)
        while line.serve():
            pass
    return line, sent


def late(line: Line, batch: list[Request]) -> float:
    """Which part of ``hurt``'s requests in this round took longer than it was promised."""
    hurt = [one for one in batch if one.tenant == "hurt"]
    return sum(line.waited_s[one] > 2.0 for one in hurt) / len(hurt)


@pytest.mark.parametrize("name", ["exfairs", "exfairs-signed", "QUEUE_ExFairS"])
def test_within_two_rounds_the_late_tenant_goes_first(name: str) -> None:
    """Its requests overtake, fewer are late, credit moves by k, and the engine is told its rank."""
    policy = policy_for(name, {"round_s": 10}, TERMS)
    line, sent = rounds(policy, 3)
    served = [[line.order.index(one) for one in batch if one.tenant == "hurt"] for batch in sent]
    first = [min(places) - 16 * number for number, places in enumerate(served)]
    assert first[0] == 12  # by arrival: behind all of the other
    assert first[2] == 0
    assert late(line, sent[0]) == 1.0
    assert late(line, sent[2]) < 0.5
    hurt, fine = line.ranks[sent[1][-1]], line.ranks[sent[1][0]]
    assert (hurt, fine) == (-5, 5)  # k = int(10 min(|difference of f|, 0.5)) = 5
    credit = policy.counters()
    assert credit["fine"] == -credit["hurt"]
    assert credit["fine"] > 0


def test_the_first_exchange_moves_credit_by_k() -> None:
    """After one round the one who fared well has paid 5 places, and the other has got them."""
    policy = policy_for("exfairs", {"round_s": 10}, TERMS)
    rounds(policy, 2)
    policy.arrive(request(1, "fine"), 19.9)
    assert policy.counters() == {"fine": 5.0, "hurt": -5.0}


def test_what_never_ends_is_a_violation() -> None:
    """Requests that are cancelled, or still open after their time, are late at a round's end."""
    for gone in (True, False):
        policy = policy_for("exfairs", {"round_s": 10}, TERMS)
        lost, served = request(1, "hurt"), request(2, "fine")
        for one in (lost, served):
            policy.arrive(one, 0.0)
        policy.admit(served, 0.0)
        policy.produced(served, 10, 1.0)
        policy.finish(served, 1.0)
        if gone:
            policy.cancel(lost, 1.0)
        policy.arrive(request(3, "fine"), 10.0)
        # f is 0.7 of one and 0.3 of the other
        assert policy.counters() == {"hurt": -4.0, "fine": 4.0}


def test_a_round_in_which_nobody_was_served_changes_nothing() -> None:
    """By the paper all are equal when the total service is 0."""
    policy = policy_for("exfairs", {"round_s": 10}, TERMS)
    policy.arrive(request(1, "hurt"), 0.0)
    policy.arrive(request(2, "fine"), 0.0)
    policy.arrive(request(3, "fine"), 1000.0)
    assert policy.counters() == {"hurt": 0.0, "fine": 0.0}


def test_the_formulas_differ_in_the_sign_of_service() -> None:
    """Where none is late, the published f moves the greatest consumer up, the signed one down."""
    moved = {}
    for name in ("exfairs", "exfairs-signed"):
        policy = policy_for(name, {"round_s": 10})
        line = Line(policy, each_s=0.1)
        line.arrive(request(1, "great", prompt=1000))
        line.arrive(request(2, "small"))
        while line.serve():
            pass
        policy.arrive(request(3, "small"), 10.0)
        moved[name] = policy.counters()["great"]
    assert moved == {"exfairs": -2.0, "exfairs-signed": 2.0}


def test_the_ends_are_paired_and_nobody_twice() -> None:
    """The best with the worst off, the next with the next, until they are no further apart."""
    standings = {name: Standing() for name in "abcde"}
    exchange({"a": 0.0, "b": 0.2, "c": 0.4, "d": 0.5, "e": 0.9}, standings, Exchange())
    places = {name: standing.priority for name, standing in standings.items()}
    assert places == {"a": 5, "e": -5, "b": 3, "d": -3, "c": 0}
    assert all(one.priority == one.credit for one in standings.values())


def test_of_equals_the_one_with_less_credit_pays() -> None:
    """Credit decides between tenants that fared equally well."""
    standings = {"rich": Standing(credit=9), "poor": Standing(credit=1), "hurt": Standing()}
    exchange({"rich": 0.0, "poor": 0.0, "hurt": 1.0}, standings, Exchange())
    assert standings["poor"].credit == 6
    assert standings["rich"].credit == 9


def by_hand(queue: list[tuple[Request, int]], priority: int) -> int:
    """How many places are gained, from the definition."""
    levels = sorted({p for _, p in queue})
    distinct = len(levels) + (priority not in levels)
    ratio = sum(level < priority for level in levels) / distinct
    can = sum(p > priority for _, p in queue)
    return min(int(can * (1 - ratio)) * 2, 7, can, len(queue))


def test_a_newcomer_gains_the_places_of_the_definition() -> None:
    """Against a plain list, over random arrivals, put-backs and departures."""
    draw = random.Random(5)
    priorities: dict[Request, int] = {}
    queue = OvertakingQueue(priorities.__getitem__, 2, 7)
    plain: list[tuple[Request, int]] = []
    for number in range(4000):
        if plain and draw.random() < 0.45:
            gone = plain.pop(draw.randrange(len(plain)))[0]
            assert queue.remove(gone)
            continue
        one = request(number)
        priorities[one] = draw.randrange(-6, 7)
        entry = (one, priorities[one])
        if draw.random() < 0.1:
            queue.prepend(one)
            plain.insert(0, entry)
        else:
            place = len(plain) - by_hand(plain, priorities[one])
            queue.append(one)
            plain.insert(place, entry)
        assert queue.first() is plain[0][0]
    while plain:
        assert queue.first() is plain[0][0]
        assert queue.remove(plain.pop(0)[0])
    assert queue.first() is None
