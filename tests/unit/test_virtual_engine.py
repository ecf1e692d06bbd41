"""The engine's scheduling: every request ends once, the KV cache is never overdrawn."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from fairshare.virtual.engine import BLOCK_TOKENS, Engine, Limits, Sequence, Step
from fairshare.virtual.models import virtual_model
from fairshare.virtual.physics import Demand, work_s


@dataclass(frozen=True)
class A100:
    """An A100-40's peaks."""

    peak_flops: float = 312e12
    bandwidth_bytes_s: float = 1555e9


def alone(demand: Demand) -> float:
    """A dedicated device."""
    return demand.latency_s + work_s(demand, 1.0, 1.0)


def engine(seqs: int = 64, budget: int = 2048, blocks: int = 10_000) -> Engine:
    """An engine on an A100."""
    return Engine(A100(), virtual_model("qwen3-4b"), Limits(seqs, budget, blocks))


def drain(under_test: Engine, at_most: int = 100_000) -> list[Step]:
    """Step until there is nothing left."""
    steps: list[Step] = []
    while under_test.has_work:
        steps.append(under_test.step(alone))
        assert len(steps) < at_most, "the engine makes no progress"
    return steps


def test_one_request_prefills_then_decodes() -> None:
    """The first token comes with the last prompt chunk, each further one with one step."""
    one = engine(budget=100)
    one.add(Sequence("a", prompt_tokens=250, max_tokens=5))
    steps = drain(one)
    assert [step.batch.prompt_tokens for step in steps] == [100, 100, 50, 0, 0, 0, 0]
    assert [len(step.emitted) for step in steps] == [0, 0, 1, 1, 1, 1, 1]
    assert [step.batch.decode_context for step in steps[3:]] == [250, 251, 252, 253]
    assert [s.id for s in steps[-1].finished] == ["a"]


def test_decodes_come_before_prompt_chunks() -> None:
    """A long prompt gets only the budget that running sequences leave."""
    both = engine(budget=64)
    both.add(Sequence("short", 10, 20))
    both.step(alone)
    both.add(Sequence("long", 500, 1))
    step = both.step(alone)
    assert step.batch.decoding == 1
    assert step.batch.prompt_tokens == 63
    assert [s.id for s in step.emitted] == ["short"]


def test_token_budget_and_sequence_limit_hold_in_every_step() -> None:
    """No step computes more tokens or runs more sequences than it may."""
    limited = engine(seqs=4, budget=128)
    for i in range(20):
        limited.add(Sequence(str(i), 50 + i, 10))
    while limited.has_work:
        step = limited.step(alone)
        assert step.batch.prompt_tokens + step.batch.decoding <= 128
        assert len(limited.running) + len(step.finished) <= 4


def test_every_request_ends_once_when_the_kv_cache_is_exhausted() -> None:
    """Preempted sequences are recomputed, every token is emitted once, all blocks come back."""
    tight = engine(blocks=40)
    rng = random.Random(7)
    wanted = {str(i): rng.randint(50, 150) for i in range(30)}
    for name, tokens in wanted.items():
        tight.add(Sequence(name, rng.randint(1, 200), tokens))
    emitted = dict.fromkeys(wanted, 0)
    finished: list[str] = []
    for step in drain(tight):
        finished += [s.id for s in step.finished]
        for sequence in step.emitted:
            emitted[sequence.id] += 1
    assert tight.preemptions > 0
    assert sorted(finished) == sorted(wanted)
    assert emitted == wanted
    assert tight.free_blocks == 40
    assert tight.kv_usage == 0


def test_preemption_takes_the_newest_and_recomputes_its_answer_too() -> None:
    """The newest sequence leaves, and comes back with prompt and generated tokens to compute."""
    tight = engine(blocks=4)
    tight.add(Sequence("old", 16, 40))
    tight.add(Sequence("new", 16, 40))
    while not tight.preemptions:
        tight.step(alone)
    assert [s.id for s in tight.waiting] == ["new"]
    lost = tight.waiting[0]
    assert (lost.computed, lost.blocks) == (0, 0)
    assert lost.generated > 0
    while lost not in tight.running:
        step = tight.step(alone)
    assert step.batch.prompt_tokens == lost.prompt_tokens + lost.generated - 1


def test_admission_waits_for_the_whole_prompt_in_order() -> None:
    """A prompt that does not fit yet waits, and later ones do not overtake it."""
    tight = engine(blocks=10)
    tight.add(Sequence("first", 6 * BLOCK_TOKENS, 16))
    tight.add(Sequence("large", 8 * BLOCK_TOKENS, 1))
    tight.add(Sequence("small", 1, 1))
    step = tight.step(alone)
    assert [s.id for s in step.emitted] == ["first"]
    assert [s.id for s in tight.waiting] == ["large", "small"]
    assert sorted(s.id for step in drain(tight) for s in step.finished) == [
        "first",
        "large",
        "small",
    ]


def test_impossible_requests_are_refused() -> None:
    """What can never fit, or asks for nothing, is refused at once instead of waiting for ever."""
    small = engine(blocks=2)
    for sequence in (Sequence("a", 30, 3), Sequence("b", 0, 1), Sequence("c", 1, 0)):
        with pytest.raises(ValueError, match="sequence"):
            small.add(sequence)
    with pytest.raises(RuntimeError):
        small.step(alone)


def test_removal_frees_what_the_request_held() -> None:
    """A client that goes gives back its blocks, running or waiting."""
    two = engine(seqs=1)
    running, waiting = Sequence("a", 100, 50), Sequence("b", 100, 50)
    two.add(running)
    two.add(waiting)
    two.step(alone)
    two.remove(running)
    two.remove(waiting)
    two.remove(waiting)
    assert not two.has_work
    assert two.free_blocks == two.limits.kv_blocks


def test_a_repeated_run_is_identical() -> None:
    """The same requests give the same steps, to the last bit of their durations."""

    def run() -> list[tuple[float, list[str]]]:
        once = engine(blocks=60)
        rng = random.Random(3)
        for i in range(25):
            once.add(Sequence(str(i), rng.randint(1, 300), rng.randint(1, 80)))
        return [(s.duration_s, [q.id for q in s.emitted]) for s in drain(once)]

    assert run() == run()
