"""A continuous-batching engine without a clock: vLLM v1's rules, one iteration at a time.

Running sequences come first (decodes, then the prompt chunk that is under way), then waiting
prompts are admitted while the token budget, the number of sequences and the KV cache allow. When
the KV cache is exhausted the newest sequence is preempted and recomputed later, prompt and
generated tokens alike. There is no prefix cache: no token is ever served from another request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fairshare.virtual.models import VirtualModel
from fairshare.virtual.physics import PUBLISHED, Batch, Constants, Demand, Gpu, step_demand

BLOCK_TOKENS = 16


@dataclass(slots=True, eq=False)
class Sequence:
    """One request inside the engine.

    ``computed`` tokens have their KV in the cache; ``generated`` have been emitted so far.
    """

    id: str
    prompt_tokens: int
    max_tokens: int
    computed: int = 0
    generated: int = 0
    blocks: int = 0
    preemptions: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and generated tokens."""
        return self.prompt_tokens + self.generated


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine may do in one iteration and hold at once."""

    max_num_seqs: int
    max_num_batched_tokens: int
    kv_blocks: int


@dataclass(slots=True)
class Step:
    """One iteration: how long it takes and who gets a token at its end."""

    duration_s: float
    demand: Demand
    batch: Batch
    emitted: list[Sequence] = field(default_factory=list)
    finished: list[Sequence] = field(default_factory=list)


@dataclass(slots=True)
class Engine:
    """The state of one simulated server; time is the caller's business."""

    gpu: Gpu
    model: VirtualModel
    limits: Limits
    constants: Constants = PUBLISHED
    eager: bool = False
    waiting: deque[Sequence] = field(default_factory=deque)
    running: list[Sequence] = field(default_factory=list)
    free_blocks: int = field(init=False)
    preemptions: int = 0

    def __post_init__(self) -> None:
        self.free_blocks = self.limits.kv_blocks

    @property
    def has_work(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self.running or self.waiting)

    @property
    def kv_usage(self) -> float:
        """Fraction of the KV blocks in use."""
        return 1 - self.free_blocks / self.limits.kv_blocks

    def fits(self, tokens: int) -> bool:
        """Whether a sequence of so many tokens in all can ever be served."""
        return blocks_for(tokens) <= self.limits.kv_blocks

    def add(self, sequence: Sequence) -> None:
        """Queue a request.

        Raises:
            ValueError: it can never fit into the KV cache, or asks for nothing.
        """
        if sequence.prompt_tokens < 1 or sequence.max_tokens < 1:
            raise ValueError("a sequence needs at least one prompt token and one output token")
        if not self.fits(sequence.prompt_tokens + sequence.max_tokens):
            raise ValueError(f"sequence {sequence.id} is longer than the whole KV cache")
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a request that finished early or whose client has gone."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def step(self, duration_of: Callable[[Demand], float]) -> Step:
        """One iteration over the current batch; ``duration_of`` applies the sharing rule.

        The state afterwards is that of the iteration's end: who is in ``emitted`` has one token
        more, who is in ``finished`` has left.

        Raises:
            RuntimeError: there is no work.
        """
        plan = self._schedule()
        if not plan:
            raise RuntimeError("nothing to compute")
        batch = _batch(plan)
        demand = step_demand(self.gpu, self.model, batch, self.constants, eager=self.eager)
        step = Step(duration_of(demand), demand, batch)
        for sequence, tokens in plan:
            sequence.computed += tokens
            if sequence.computed < sequence.tokens:
                continue
            sequence.generated += 1
            step.emitted.append(sequence)
            if sequence.generated >= sequence.max_tokens:
                step.finished.append(sequence)
                self.remove(sequence)
        return step

    def _schedule(self) -> list[tuple[Sequence, int]]:
        plan: list[tuple[Sequence, int]] = []
        budget = self.limits.max_num_batched_tokens
        preempted = False
        index = 0
        while index < len(self.running) and budget > 0:
            sequence = self.running[index]
            tokens = min(sequence.tokens - sequence.computed, budget)
            while not self._reserve(sequence, sequence.computed + tokens):
                preempted = True
                if self._preempt_newest() is sequence:
                    return plan
            plan.append((sequence, tokens))
            budget -= tokens
            index += 1
        if not preempted:
            plan += self._admit(budget)
        return plan

    def _admit(self, budget: int) -> list[tuple[Sequence, int]]:
        admitted: list[tuple[Sequence, int]] = []
        while self.waiting and budget > 0 and len(self.running) < self.limits.max_num_seqs:
            sequence = self.waiting[0]
            if not self._reserve(sequence, sequence.tokens):
                break
            self.waiting.popleft()
            self.running.append(sequence)
            tokens = min(sequence.tokens, budget)
            admitted.append((sequence, tokens))
            budget -= tokens
        return admitted

    def _reserve(self, sequence: Sequence, tokens: int) -> bool:
        missing = blocks_for(tokens) - sequence.blocks
        if missing > self.free_blocks:
            return False
        if missing > 0:
            self.free_blocks -= missing
            sequence.blocks += missing
        return True

    def _release(self, sequence: Sequence) -> None:
        self.free_blocks += sequence.blocks
        sequence.blocks = 0

    def _preempt_newest(self) -> Sequence:
        newest = self.running.pop()
        self._release(newest)
        newest.computed = 0
        newest.preemptions += 1
        self.preemptions += 1
        self.waiting.appendleft(newest)
        return newest


def blocks_for(tokens: int) -> int:
    """KV blocks that hold so many tokens."""
    return -(-tokens // BLOCK_TOKENS)


def _batch(plan: list[tuple[Sequence, int]]) -> Batch:
    prompt = decoding = sampled = context = starts = 0
    pairs = 0.0
    for sequence, tokens in plan:
        start = sequence.computed
        if start + tokens == sequence.tokens:
            sampled += 1
        if tokens == 1 and start >= sequence.prompt_tokens:
            decoding += 1
            context += start
        else:
            prompt += tokens
            starts += start
            pairs += tokens * (start + tokens / 2)
    return Batch(prompt, decoding, sampled, context, starts, pairs)
