"""Prompts of which a trace says how they begin alike: block by block, by their hashes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fairshare.workload.prompts import Vocabulary


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of one prompt. Equal hashes are equal tokens wherever they occur in a cell.

    So a prefix cache serves what it served when the trace was taken, in blocks of its own size.
    ``seed`` is that of the cell and the trace: other cells have other blocks.
    """

    hash_ids: tuple[int, ...]
    block_tokens: int
    seed: tuple[int, ...]

    def pieces(self, vocabulary: Vocabulary, n: int, *, as_text: bool) -> list[Any]:
        """The first ``n`` tokens (or words) of the blocks, or all of them if they are fewer."""
        pieces: list[Any] = []
        for hash_id in self.hash_ids:
            if len(pieces) >= n:
                break
            # Words and ids alike are drawn whole and then cut: half a block is half of the same.
            rng = np.random.Generator(np.random.PCG64([*self.seed, hash_id]))
            draw = vocabulary.words if as_text else vocabulary.ids
            pieces += draw(rng, self.block_tokens)
        return pieces[:n]
