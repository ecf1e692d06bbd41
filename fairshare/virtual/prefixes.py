"""Blocks of prompts that stay in the KV cache for whoever begins in the same way.

As in vLLM: a block is known by all tokens from the prompt's beginning to its end, its last token is
always computed anew, blocks that nobody holds stay until their room is needed, and of those the one
that was let go first is overwritten first, the end of a prompt before its beginning.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

BLOCK_TOKENS = 16


class Holder(Protocol):
    """A sequence: its prompt, the names of the prompt's full blocks, how many it holds with us."""

    prompt_tokens: int
    prefix: tuple[int, ...]
    shared: int


class PrefixCache:
    """Which named blocks there are, who holds them, and which may be overwritten."""

    def __init__(self) -> None:
        self._holders: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

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

    def enter(self, sequence: Holder) -> int:
        """Name the blocks that a sequence has computed; how many of them we free from now on.

        Where another has named the same block meanwhile, it and all that follow stay unnamed.
        """
        before = sequence.shared
        for name in sequence.prefix[before:]:
            if name in self._holders:
                break
            self._holders[name] = 1
            sequence.shared += 1
        return sequence.shared - before

    def release(self, sequence: Holder) -> int:
        """Let a sequence go; how many blocks nobody holds any more."""
        freed = 0
        for name in reversed(sequence.prefix[: sequence.shared]):
            self._holders[name] -= 1
            if not self._holders[name]:
                self._idle[name] = None
                freed += 1
        sequence.shared = 0
        return freed

    def keep_at_most(self, blocks: int) -> None:
        """Overwrite those that were let go first until no more than ``blocks`` are left idle."""
        while len(self._idle) > blocks:
            name, _ = self._idle.popitem(last=False)
            del self._holders[name]
