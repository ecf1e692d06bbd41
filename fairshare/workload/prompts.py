"""Random prompts of an exact number of tokens, as token ids or as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from fairshare.errors import SpecError
from fairshare.workload.tokenizer import Tokenizer, has_tokenizer, load_tokenizer
from fairshare.workload.words import Words, find_words


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that prompts of one model are drawn from.

    Every token is drawn independently, the first ones too, so that no two prompts share a prefix
    that an engine's prefix cache could serve: among even 128 tokens, two prompts agree in their
    first 16 with probability 128^-16.
    """

    size: int
    special_ids: frozenset[int] = frozenset()
    tokenizer: Tokenizer | None = None

    def __post_init__(self) -> None:
        if not self._allowed.size:
            raise SpecError(f"a vocabulary of {self.size} tokens has none but special ones")

    def ids(self, rng: np.random.Generator, n: int) -> list[int]:
        """``n`` random token ids, none of them special."""
        drawn: list[int] = self._allowed[rng.integers(0, self._allowed.size, n)].tolist()
        return drawn

    def text(self, rng: np.random.Generator, n: int) -> str:
        """Random text that the tokenizer encodes to exactly ``n`` tokens.

        Special tokens that a server or chat template adds come on top; its usage says the total.

        Raises:
            SpecError: there is no tokenizer, or none with which exact text can be made.
        """
        return self.join(self.words(rng, n))

    def words(self, rng: np.random.Generator, n: int) -> list[str]:
        """``n`` random words of a token each. Raises SpecError as :meth:`text`."""
        words = self._words.words
        indices: list[int] = rng.integers(0, len(words), n).tolist()
        return [words[i] for i in indices]

    def join(self, words: Sequence[str]) -> str:
        """Words of :meth:`words` as one text of as many tokens."""
        return self._words.joiner.join(words)

    def count(self, text: str) -> int:
        """Tokens of a given text; 0 where there is no tokenizer, so that it is not known."""
        return len(self.tokenizer.encode(text)) if self.tokenizer is not None else 0

    @cached_property
    def _allowed(self) -> NDArray[np.int64]:
        ids = np.arange(self.size, dtype=np.int64)
        return ids[~np.isin(ids, list(self.special_ids))]

    @cached_property
    def _words(self) -> Words:
        if self.tokenizer is None:
            raise SpecError(
                "prompts as text of an exact number of tokens need the model's tokenizer",
                hint="give --model a folder with a tokenizer, or use api: completions with a "
                "launcher that takes token ids",
            )
        return find_words(self.tokenizer, self.size)


@lru_cache(maxsize=8)
def load_vocabulary(
    model_path: str, size: int, eos_token_ids: frozenset[int] = frozenset()
) -> Vocabulary:
    """The vocabulary of the model in a folder, its special tokens left out.

    Without a tokenizer there (a simulated model needs none) it makes token ids but no text.

    Raises:
        SpecError: the tokenizer is damaged, or there are no tokens but special ones.
    """
    if not has_tokenizer(model_path):
        return Vocabulary(size, eos_token_ids)
    tokenizer = load_tokenizer(model_path)
    return Vocabulary(size, tokenizer.special_ids | eos_token_ids, tokenizer)
