"""Blocks of prompts that stay in the KV cache for whoever begins in the same way.

As in vLLM: a block is known by all tokens from the prompt's beginning to its end, its last token is
always computed anew, and blocks that nobody holds, named or not, are overwritten in the order in
which they were let go, the end of a sequence before its beginning.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

BLOCK_TOKENS = 16
_NOT_NEGATIVE = 2**63 - 1


def block_names(prompt: Sequence[int]) -> tuple[int, ...]:
    """Names of a prompt's full blocks: equal where all tokens from the beginning are equal.

    Hashes of numbers are the same in every process; that two of them meet by chance is as unlikely
    as in vLLM's own cache.
    """
    names: list[int] = []
    name = 0
    for start in range(0, len(prompt) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        name = hash((name, *prompt[start : start + BLOCK_TOKENS])) & _NOT_NEGATIVE
        names.append(name)
    return tuple(names)


class Holder(Protocol):
    """A sequence: its prompt, the names of the prompt's full blocks, how many it holds with us."""

    prompt_tokens: int
    prefix: tuple[int, ...]
    shared: int


class PrefixCache:
    """Which named blocks there are, who holds them, and which may be overwritten."""

    def __init__(self, blocks: int) -> None:
        self._holders: dict[int, int] = {}
        # Idle blocks in the order in which they are overwritten: a name, which is not negative, or
        # a number of nameless ones under a key of their own.
        self._idle: OrderedDict[int, int] = OrderedDict({-1: blocks})
        self._keys = 1

    def look_up(self, sequence: Holder) -> tuple[int, int]:
        """Blocks from the beginning that are there, and how many of them nobody holds."""
        found = idle = 0
        for name in sequence.prefix[: (sequence.prompt_tokens - 1) // BLOCK_TOKENS]:
            holders = self._holders.get(name)
            if holders is None:
                break
            found += 1
            idle += holders == 0
        return found, idle

    def hold(self, sequence: Holder, count: int) -> None:
        """Let a sequence hold the first ``count`` of its blocks, all of them found."""
        for name in sequence.prefix[:count]:
            if not self._holders[name]:
                del self._idle[name]
            self._holders[name] += 1
        sequence.shared = count

    def enter(self, sequence: Holder, tokens: int) -> int:
        """Name the blocks in a sequence's first ``tokens``; how many of them we free from now on.

        Where another has named the same block meanwhile, it and all that follow stay unnamed.
        """
        before, holders = sequence.shared, self._holders
        if before >= len(sequence.prefix):
            return 0
        named = 0
        for name in sequence.prefix[before : tokens // BLOCK_TOKENS]:
            if name in holders:
                break
            holders[name] = 1
            named += 1
        sequence.shared += named
        return named

    def release(self, sequence: Holder, nameless: int) -> int:
        """Let a sequence go, and its nameless blocks; how many nobody holds any more."""
        freed = nameless
        if nameless:
            self._keys += 1
            self._idle[-self._keys] = nameless
        holders, idle = self._holders, self._idle
        for name in reversed(sequence.prefix[: sequence.shared]):
            left = holders[name] = holders[name] - 1
            if not left:
                idle[name] = 1
                freed += 1
        sequence.shared = 0
        return freed

    def take(self, blocks: int) -> None:
        """Overwrite so many idle blocks; the caller knows that there are as many."""
        idle, holders = self._idle, self._holders
        while blocks:
            key, count = idle.popitem(last=False)
            if count > blocks:
                idle[key] = count - blocks
                idle.move_to_end(key, last=False)
                return
            blocks -= count
            if key >= 0:
                del holders[key]
