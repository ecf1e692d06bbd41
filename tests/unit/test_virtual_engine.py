"""The engine's scheduling: every request ends once, the KV cache is never overdrawn."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from unittest.mock import ANY

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairshare.scheduling.policy import Refusal, Request, SchedulingPolicy
from fairshare.virtual.engine import Engine, Limits, Sequence
from fairshare.virtual.physics import Batch
from fairshare.virtual.prefixes import BLOCK_TOKENS, block_names


@dataclass
class Step:
    """One or more iterations as the test saw them."""

    batch: Batch
    emitted: list[Sequence] = field(default_factory=list)
    finished: list[Sequence] = field(default_factory=list)


def one(_: int) -> int:
    """Count one iteration at a time."""
    return 1


def engine(seqs: int = 64, budget: int = 2048, blocks: int = 10_000) -> Engine:
    """An engine that serves first come, first served."""
    return Engine(Limits(seqs, budget, blocks))


def sequence(name: str, prompt: int, output: int) -> Sequence:
    """A request of nobody in particular."""
    return Sequence(name, "", prompt, output)


def step(under_test: Engine, choose: Callable[[int], int] = one, now_s: float = 0.0) -> Step:
    """One or more iterations; each that decodes gets ``steps`` tokens."""
    work = under_test.begin(now_s)
    assert work is not None
    steps = choose(work.steps)
    decoding = under_test.decoding()
    ended = under_test.end(steps, now_s)
    assert under_test.free_blocks >= 0, "the KV cache is overdrawn"
    return Step(work.batch, decoding * steps + ended.prefilled, ended.finished)


def drain(under_test: Engine, choose: Callable[[int], int] = one) -> list[Step]:
    """Step until there is nothing left."""
    steps: list[Step] = []
    while under_test.has_work:
        steps.append(step(under_test, choose))
        assert len(steps) < 100_000, "the engine makes no progress"
    return steps


def test_one_request_prefills_then_decodes() -> None:
    """The first token comes with the last prompt chunk, each further one with one step."""
    alone = engine(budget=100)
    alone.add(sequence("a", 250, 5), 0.0)
    steps = drain(alone)
    assert [step.batch.prompt_tokens for step in steps] == [100, 100, 50, 0, 0, 0, 0]
    assert [len(step.emitted) for step in steps] == [0, 0, 1, 1, 1, 1, 1]
    assert [step.batch.decode_context for step in steps[3:]] == [250, 251, 252, 253]
    assert [s.id for s in steps[-1].finished] == ["a"]


def test_decodes_come_before_prompt_chunks() -> None:
    """A long prompt gets only the budget that running sequences leave."""
    both = engine(budget=64)
    both.add(sequence("short", 10, 20), 0.0)
    step(both)
    both.add(sequence("long", 500, 1), 0.0)
    second = step(both)
    assert second.batch.decoding == 1
    assert second.batch.prompt_tokens == 63
    assert [s.id for s in second.emitted] == ["short"]


def test_token_budget_and_sequence_limit_hold_in_every_step() -> None:
    """No step computes more tokens or runs more sequences than it may."""
    limited = engine(seqs=4, budget=128)
    for i in range(20):
        limited.add(sequence(str(i), 50 + i, 10), 0.0)
    while limited.has_work:
        done = step(limited)
        assert done.batch.prompt_tokens + done.batch.decoding <= 128
        assert len(limited.running) + len(done.finished) <= 4


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(14, 60))
def test_many_iterations_at_once_are_the_same_as_one_by_one(seed: int, blocks: int) -> None:
    """Counting iterations together changes no batch, no preemption, no end: 14 blocks or plenty."""

    def run(choose: Callable[[int], int]) -> tuple[list[str], Counter[str], int, int]:
        tight = engine(blocks=blocks)
        rng = random.Random(seed)
        for i in range(12):
            tight.add(sequence(str(i), rng.randint(1, 100), rng.randint(1, 110)), 0.0)
        steps = drain(tight, choose)
        ended = [s.id for done in steps for s in done.finished]
        tokens = Counter(s.id for done in steps for s in done.emitted)
        assert tight.free_blocks == blocks
        return ended, tokens, tight.preemptions, sum(done.batch.prompt_tokens for done in steps)

    some = random.Random(seed)
    assert run(one) == run(lambda steps: steps) == run(lambda steps: some.randint(1, steps))


def test_every_request_ends_once_when_the_kv_cache_is_exhausted() -> None:
    """Preempted sequences are recomputed, every token is emitted once, all blocks come back."""
    tight = engine(blocks=40)
    rng = random.Random(7)
    wanted = {str(i): rng.randint(50, 150) for i in range(30)}
    for name, tokens in wanted.items():
        tight.add(sequence(name, rng.randint(1, 200), tokens), 0.0)
    emitted = dict.fromkeys(wanted, 0)
    finished: list[str] = []
    for done in drain(tight):
        finished += [s.id for s in done.finished]
        for each in done.emitted:
            emitted[each.id] += 1
    assert tight.preemptions > 0
    assert sorted(finished) == sorted(wanted)
    assert emitted == wanted
    assert tight.free_blocks == 40
    assert tight.kv_usage == 0


def test_preemption_takes_the_newest_and_recomputes_its_answer_too() -> None:
    """The newest sequence leaves, and comes back with prompt and generated tokens to compute."""
    tight = engine(blocks=4)
    old, new = sequence("old", 16, 40), sequence("new", 16, 40)
    tight.add(old, 0.0)
    tight.add(new, 0.0)
    while not tight.preemptions:
        step(tight)
    assert list(tight.policy.waiting()) == [new]
    assert (new.computed, new.blocks) == (0, 0)
    assert new.generated > 0
    while new not in tight.running:
        done = step(tight)
    assert done.batch.prompt_tokens == new.prompt_tokens + new.generated - 1


def test_admission_waits_for_the_whole_prompt_in_order() -> None:
    """A prompt that does not fit yet waits, and later ones do not overtake it."""
    tight = engine(blocks=10)
    tight.add(sequence("first", 6 * BLOCK_TOKENS, 16), 0.0)
    tight.add(sequence("large", 8 * BLOCK_TOKENS, 1), 0.0)
    tight.add(sequence("small", 1, 1), 0.0)
    done = step(tight)
    assert [s.id for s in done.emitted] == ["first"]
    assert [r.id for r in tight.policy.waiting()] == ["large", "small"]
    assert sorted(s.id for done in drain(tight) for s in done.finished) == [
        "first",
        "large",
        "small",
    ]


def test_impossible_requests_are_refused() -> None:
    """What can never fit, or asks for nothing, is refused at once instead of waiting for ever."""
    small = engine(blocks=2)
    for each in (sequence("a", 30, 3), sequence("b", 0, 1), sequence("c", 1, 0)):
        with pytest.raises(ValueError, match="sequence"):
            small.add(each, 0.0)
    assert small.begin(0.0) is None


def test_removal_frees_what_the_request_held() -> None:
    """A client that goes gives back its blocks, while it waits, computes or decodes."""
    many = engine(seqs=2, budget=64)
    decoding, computing, waiting = (sequence(n, 100, 50) for n in "abc")
    for each in (decoding, computing, waiting):
        many.add(each, 0.0)
    for _ in range(3):
        step(many)
    many.begin(0.0)
    for each in (computing, decoding, waiting, waiting):
        many.remove(each, 0.0)
    many.end(1, 0.0)
    assert not many.has_work
    assert many.free_blocks == many.limits.kv_blocks


class LastFirst(SchedulingPolicy):
    """Serves the newest request, notes what it is told, and lets three wait."""

    name = "last-first"

    def __init__(self) -> None:
        self.queue: list[Request] = []
        self.told: Counter[str] = Counter()
        self.ended: list[str] = []

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        """Refuse the fourth."""
        if len(self) == 3:
            return Refusal("full", 1.0)
        self.queue.append(request)
        return None

    def head(self, now_s: float) -> Request | None:
        """The newest."""
        return self.queue[-1] if self.queue else None

    def admit(self, request: Request, now_s: float) -> None:
        """It waits no longer."""
        self.queue.remove(request)

    def does_not_fit(self, now_s: float) -> list[tuple[Request, Refusal]]:
        """Throw the head out."""
        return [(self.queue.pop(), Refusal("no room"))]

    def put_back(self, request: Request, now_s: float, *, preempted: bool) -> None:
        """It waits again."""
        self.queue.append(request)

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        """Count what is told."""
        self.told[request.id] += tokens

    def finish(self, request: Request, now_s: float) -> None:
        """Note the end."""
        self.ended.append(request.id)

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        """Forget it."""
        self.queue.remove(request)

    def waiting(self) -> Iterator[Request]:
        """Those that wait."""
        return iter(self.queue)

    def __len__(self) -> int:
        return len(self.queue)


def test_the_policy_says_who_is_next_and_hears_of_every_token() -> None:
    """The order of admission is the policy's; it is told each token once, and each end."""
    policy = LastFirst()
    served = Engine(Limits(1, 64, 1000), policy)
    refusals = [served.add(sequence(name, 20, 7), 0.0) for name in "abcd"]
    assert [refusal is None for refusal in refusals] == [True, True, True, False]
    finished = [s.id for done in drain(served, lambda steps: steps) for s in done.finished]
    assert finished == policy.ended == ["c", "b", "a"]
    assert policy.told == {"a": 7, "b": 7, "c": 7}


def test_what_the_policy_throws_out_for_want_of_room_is_handed_on() -> None:
    """A head that finds no room and is dropped does not wait for ever: its caller learns why."""
    policy = LastFirst()
    served = Engine(Limits(8, 640, 10), policy)
    served.add(sequence("a", 100, 20), 0.0)
    step(served)
    late = sequence("b", 100, 20)
    served.add(late, 0.0)
    step(served)
    assert [(s.id, refusal.reason) for s, refusal in served.dropped] == [("b", "no room")]
    drain(served)
    assert served.waiting == 0


def prompted(name: str, prompt: list[int], output: int = 4) -> Sequence:
    """A request whose prompt consists of these blocks, named by what lies before them too."""
    prefix = tuple(abs(hash(tuple(prompt[: i + 1]))) for i in range(len(prompt)))
    return Sequence(name, "", BLOCK_TOKENS * len(prompt), output, prefix=prefix)


def test_a_prompt_that_is_known_is_not_computed_again() -> None:
    """All full blocks but the last are found again, by a later request and by one beside it."""
    served = engine()
    first, second, third = prompted("a", [1, 2, 3]), prompted("b", [1, 2, 3]), prompted("c", [1, 9])
    served.add(first, 0.0)
    assert step(served).batch.prompt_tokens == 48
    served.add(second, 0.0)
    served.add(third, 0.0)
    assert step(served).batch.prompt_tokens == 16 + 16
    drain(served)
    assert [s.cached_tokens for s in (first, second, third)] == [0, 32, 16]
    assert served.free_blocks == served.limits.kv_blocks


def test_a_prompt_that_is_being_computed_is_not_computed_beside_it() -> None:
    """As in vLLM, who is admitted after another in one iteration finds that one's blocks."""
    served = engine(budget=40)
    requests = [prompted(name, [1, 2, 3]) for name in "ab"]
    for request in requests:
        served.add(request, 0.0)
    assert step(served).batch.prompt_tokens == 40  # the first, but for its end
    assert step(served).batch.prompt_tokens == 8 + 16  # which is computed, and b's last block
    drain(served)
    assert [s.cached_tokens for s in requests] == [0, 32]
    assert served.free_blocks == served.limits.kv_blocks


def test_a_block_is_known_by_all_that_lies_before_it() -> None:
    """Prompts share the names of their full blocks up to the first token that differs."""
    prompt = list(range(100))
    names = block_names(prompt)
    assert len(names) == 6
    assert block_names([*prompt[:40], 7, *prompt[41:]])[:3] == (*names[:2], ANY)
    assert not set(block_names([7, *prompt[1:]])) & set(names)
    assert min(names) >= 0


def test_idle_blocks_are_overwritten_the_oldest_prompt_and_its_end_first() -> None:
    """Room is made for new prompts at the cost of the cache, and never of those that run."""
    served = engine(blocks=8)
    for name, prompt in (("a", [1, 2, 3]), ("b", [4, 5, 6])):
        served.add(prompted(name, prompt), 0.0)
        drain(served)
    served.add(prompted("c", [7]), 0.0)  # takes the places of a's answer and of a's last block
    drain(served)
    again = prompted("d", [1, 2, 3])
    served.add(again, 0.0)
    drain(served)
    assert again.cached_tokens == 32
    assert served.free_blocks == 8


@given(st.integers(0, 2**32), st.integers(20, 80))
def test_the_prefix_cache_neither_loses_nor_invents_blocks(seed: int, blocks: int) -> None:
    """Whatever is shared, preempted and overwritten, all blocks come back and all requests end."""
    served = engine(blocks=blocks)
    rng = random.Random(seed)
    for i in range(15):
        prompt = [rng.randint(1, 2) for _ in range(rng.randint(1, 6))]
        served.add(prompted(str(i), prompt, rng.randint(1, 90)), 0.0)
    ended = [s.id for done in drain(served, lambda steps: steps) for s in done.finished]
    assert sorted(ended) == sorted(str(i) for i in range(15))
    assert served.free_blocks == blocks
