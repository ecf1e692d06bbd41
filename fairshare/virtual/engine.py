"""A continuous-batching engine without a clock: vLLM v1's rules, one iteration at a time or many.

Running sequences come first (decodes, then the prompt chunk that is under way), then the waiting
queue's head is admitted while the token budget, the number of sequences and the KV cache allow.
Who is the head is the scheduling policy's business. When the KV cache is exhausted the newest
sequence is preempted and recomputed later, prompt and generated tokens alike. Prompts that name
their blocks (:attr:`Sequence.prefix`) find those again that nobody has overwritten since.

Whoever has the clock calls :meth:`Engine.begin`, lets the iteration take its time, and calls
:meth:`Engine.end`. Between two changes of the batch all iterations are alike but for one more token
of context in each sequence, so ``begin`` says for how many of them that holds, and ``end`` may
count several at once: the cost does not grow with their number, nor with the size of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush

from fairshare.scheduling.fcfs import Fcfs
from fairshare.scheduling.policy import Refusal, Request, SchedulingPolicy
from fairshare.virtual.physics import Batch
from fairshare.virtual.prefixes import BLOCK_TOKENS, PrefixCache


@dataclass(slots=True, eq=False)
class Sequence(Request):
    """One request inside the engine.

    ``computed`` tokens have their KV in the cache; ``generated`` have been emitted so far (while it
    decodes both are the engine's to tell); ``told`` of them the policy knows of.
    ``prefix`` names the full blocks of the prompt from its beginning, by numbers that are not
    negative and equal for equal contents; of these ``shared`` are held in the prefix cache.
    """

    priority: int = 0  # vLLM's: smaller goes first
    computed: int = 0
    generated: int = 0
    blocks: int = 0
    preemptions: int = 0
    told: int = 0
    prefix: tuple[int, ...] = ()
    shared: int = 0
    admission: int = 0
    offset: int | None = None  # while it decodes: computed tokens less the engine's decode steps

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

    @property
    def seats(self) -> int:
        """Sequences that can run at once: each needs a token of the budget."""
        return min(self.max_num_seqs, self.max_num_batched_tokens)


@dataclass(slots=True)
class Work:
    """What is computed next: ``batch``, and ``steps`` iterations of it if nobody interferes.

    In each iteration after the first the decoding sequences read one token more.
    """

    batch: Batch
    steps: int


@dataclass(slots=True)
class Ended:
    """What the iterations that ended have done besides decoding.

    ``prefilled`` got a token by a prompt that is now complete (their first one, unless they had
    been preempted), ``finished`` have left with their last token.
    """

    prefilled: list[Sequence] = field(default_factory=list)
    finished: list[Sequence] = field(default_factory=list)


class Engine:
    """The state of one simulated server; time is the caller's business and only handed on."""

    def __init__(self, limits: Limits, policy: SchedulingPolicy | None = None) -> None:
        self.limits = limits
        self.policy = Fcfs() if policy is None else policy
        self.free_blocks = limits.kv_blocks
        self.preemptions = 0
        self.steps = 0  # iterations in which somebody decoded
        self.decoding_count = 0
        self.running: dict[Sequence, None] = {}  # in the order of admission
        # Thrown out by the policy; whoever has the clock takes them.
        self.dropped: list[tuple[Sequence, Refusal]] = []
        self._waiting: dict[Request, Sequence] = {}
        self._chunk: Sequence | None = None  # whose prompt is under way: the newest, if any
        self._prefills: list[tuple[Sequence, int]] = []  # of the iteration that has begun
        self._admissions = 0
        # Sequences that decode, by what matters of them besides their number: the tokens that they
        # read, when they end (in decode steps), and where in a block of the KV cache they stand.
        self._context = 0
        self._ends: list[tuple[int, int, Sequence]] = []
        self._residues = [0] * BLOCK_TOKENS
        self._cache = PrefixCache(limits.kv_blocks)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to compute, or anybody waits for it."""
        return bool(self.running or self._waiting)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def kv_usage(self) -> float:
        """Fraction of the KV blocks in use."""
        return 1 - self.free_blocks / self.limits.kv_blocks

    def fits(self, tokens: int) -> bool:
        """Whether a sequence of so many tokens in all can ever be served."""
        return blocks_for(tokens) <= self.limits.kv_blocks

    def decoding(self) -> list[Sequence]:
        """The sequences that get a token with each iteration, oldest first."""
        return [sequence for sequence in self.running if sequence.offset is not None]

    def add(self, sequence: Sequence, now_s: float) -> Refusal | None:
        """Queue a request, unless the policy refuses it.

        Raises:
            ValueError: it can never fit into the KV cache, or asks for nothing.
        """
        if sequence.prompt_tokens < 1 or sequence.max_output_tokens < 1:
            raise ValueError("a sequence needs at least one prompt token and one output token")
        if not self.fits(sequence.prompt_tokens + sequence.max_output_tokens):
            raise ValueError(f"sequence {sequence.id} is longer than the whole KV cache")
        refusal = self.policy.arrive(sequence, now_s)
        if refusal is None:
            self._waiting[sequence] = sequence
        return refusal

    def remove(self, sequence: Sequence, now_s: float, *, answered: bool = False) -> None:
        """Forget a request that ended early: ``answered``, or because its client has gone."""
        if sequence in self.running:
            self._tell(sequence, now_s)
            self._leave(sequence)
        elif self._waiting.pop(sequence, None) is None:
            return
        if answered:
            self.policy.finish(sequence, now_s)
        else:
            self.policy.cancel(sequence, now_s)

    def begin(self, now_s: float) -> Work | None:
        """Decide about the next iteration; None if nobody may be served now."""
        self._prefills.clear()
        made_room = self._make_room(now_s)
        budget = self.limits.max_num_batched_tokens - self.decoding_count
        if self._chunk is not None and budget > 0:
            tokens = min(self._chunk.tokens - self._chunk.computed, budget)
            self._prefill(self._chunk, tokens)
            budget -= tokens
        if self._waiting and not made_room:
            self._admit(budget, now_s)
        if not self._prefills:
            return self._decode_work() if self.decoding_count else None
        return Work(self._batch(), 1)

    def end(self, steps: int, now_s: float) -> Ended:
        """Count ``steps`` iterations of what was begun (at most as many as ``begin`` said)."""
        ended = Ended()
        if self.decoding_count:
            self._decode(steps)
        for sequence, tokens in self._prefills:
            sequence.computed += tokens
            if sequence.computed == sequence.tokens:
                self._prompt_done(sequence, ended)
        self._prefills.clear()
        while (last := self._next_end()) is not None and last[0] == self.steps:
            self._leave(last[2])
            ended.finished.append(last[2])
        if self.policy.counts_tokens:
            for sequence in self.running:
                self._tell(sequence, now_s)
        for sequence in ended.finished:
            self._tell(sequence, now_s)
            self.policy.finish(sequence, now_s)
        return ended

    def produced(self, sequence: Sequence) -> int:
        """How many tokens a sequence has got so far."""
        if sequence.offset is None:
            return sequence.generated
        return sequence.offset + self.steps - sequence.prompt_tokens + 1

    def _decode_work(self) -> Work:
        last = self._next_end()
        assert last is not None  # noqa: S101  (somebody decodes)
        steps = last[0] - self.steps
        if self._blocks_needed(steps) > self.free_blocks:
            steps = self.free_blocks // self.decoding_count * BLOCK_TOKENS
            while self._blocks_needed(steps + 1) <= self.free_blocks:
                steps += 1
        return Work(Batch(0, self.decoding_count, self.decoding_count, self._context), steps)

    def _batch(self) -> Batch:
        prompt = starts = 0
        sampled = self.decoding_count
        pairs = 0.0
        for sequence, tokens in self._prefills:
            start = sequence.computed
            prompt += tokens
            starts += start
            pairs += tokens * (start + tokens / 2)
            sampled += start + tokens == sequence.tokens
        return Batch(prompt, self.decoding_count, sampled, self._context, starts, pairs)

    def _admit(self, budget: int, now_s: float) -> None:
        policy = self.policy
        kept = self._blocks_needed(1)  # for those that decode
        while budget > 0 and len(self.running) < self.limits.seats:
            head = policy.head(now_s)
            if head is None:
                return
            sequence = self._waiting[head]
            found, idle = self._cache.look_up(sequence)
            blocks = blocks_for(sequence.tokens) - found
            if blocks + idle > self.free_blocks - kept:
                self._drop(policy.does_not_fit(now_s))
                return
            sequence.computed = found * BLOCK_TOKENS
            if not sequence.preemptions:
                sequence.cached_tokens = sequence.computed
            policy.admit(sequence, now_s)
            del self._waiting[sequence]
            self._cache.hold(sequence, found)
            self.free_blocks -= idle
            self._take(blocks)
            sequence.blocks = blocks
            budget -= self._start(sequence, budget)

    def _start(self, sequence: Sequence, budget: int) -> int:
        """Let an admitted sequence run; how many tokens of its prompt are computed first."""
        self._admissions += 1
        sequence.admission = self._admissions
        self.running[sequence] = None
        missing = sequence.tokens - sequence.computed
        tokens = min(missing, budget)
        if tokens < missing:
            self._chunk = sequence
        self._prefill(sequence, tokens)
        return tokens

    def _prefill(self, sequence: Sequence, tokens: int) -> None:
        """Compute so many tokens of a prompt in the iteration that begins.

        Their blocks are named at once, as in vLLM: who is admitted after it, even in the same
        iteration, finds them.
        """
        self._prefills.append((sequence, tokens))
        sequence.blocks -= self._cache.enter(sequence, sequence.computed + tokens)

    def _drop(self, refused: list[tuple[Request, Refusal]]) -> None:
        self.dropped += [(self._waiting.pop(request), refusal) for request, refusal in refused]

    def _prompt_done(self, sequence: Sequence, ended: Ended) -> None:
        if sequence is self._chunk:
            self._chunk = None
        sequence.generated += 1
        ended.prefilled.append(sequence)
        if sequence.generated >= sequence.max_output_tokens:
            self._leave(sequence)
            ended.finished.append(sequence)
            return
        offset = sequence.offset = sequence.computed - self.steps
        self.decoding_count += 1
        self._context += sequence.computed
        self._residues[offset % BLOCK_TOKENS] += 1
        last = sequence.max_output_tokens - 1 + sequence.prompt_tokens - offset
        heappush(self._ends, (last, sequence.admission, sequence))

    def _decode(self, steps: int) -> None:
        self._take(self._blocks_needed(steps))
        self._context += self.decoding_count * steps
        self.steps += steps

    def _blocks_needed(self, steps: int) -> int:
        """New blocks that the decoding sequences take in the next ``steps`` iterations."""
        whole, rest = divmod(steps, BLOCK_TOKENS)
        first = self.steps
        part = sum(self._residues[-(first + i) % BLOCK_TOKENS] for i in range(rest))
        return whole * self.decoding_count + part

    def _next_end(self) -> tuple[int, int, Sequence] | None:
        """When the next decoding sequence ends, in decode steps; those that left are forgotten."""
        ends = self._ends
        while ends and (ends[0][2].offset is None or ends[0][1] != ends[0][2].admission):
            heappop(ends)
        return ends[0] if ends else None

    def _make_room(self, now_s: float) -> bool:
        """Preempt the newest until all that decode have room for one token more."""
        preempted = False
        while self._residues[-self.steps % BLOCK_TOKENS] > self.free_blocks:
            self._preempt(next(reversed(self.running)), now_s)
            preempted = True
        return preempted

    def _preempt(self, sequence: Sequence, now_s: float) -> None:
        self._leave(sequence)
        sequence.computed = 0
        sequence.preemptions += 1
        self.preemptions += 1
        self._waiting[sequence] = sequence
        self.policy.put_back(sequence, now_s, preempted=True)

    def _leave(self, sequence: Sequence) -> None:
        """Take a running sequence out and free what it holds."""
        del self.running[sequence]
        if sequence is self._chunk:
            self._chunk = None
        if self._prefills:
            self._prefills = [each for each in self._prefills if each[0] is not sequence]
        if sequence.offset is not None:
            sequence.computed = sequence.offset + self.steps
            sequence.generated = self.produced(sequence)
            sequence.blocks = blocks_for(sequence.computed) - sequence.shared
            self.decoding_count -= 1
            self._context -= sequence.computed
            self._residues[sequence.offset % BLOCK_TOKENS] -= 1
            sequence.offset = None
        self.free_blocks += self._cache.release(sequence, sequence.blocks)
        sequence.blocks = 0

    def _take(self, blocks: int) -> None:
        self.free_blocks -= blocks
        self._cache.take(blocks)

    def _tell(self, sequence: Sequence, now_s: float) -> None:
        """Let the policy know of tokens that it was not told of yet."""
        new = self.produced(sequence) - sequence.told
        if new:
            sequence.told += new
            self.policy.produced(sequence, new, now_s)


def blocks_for(tokens: int) -> int:
    """KV blocks that hold so many tokens."""
    return -(-tokens // BLOCK_TOKENS)
