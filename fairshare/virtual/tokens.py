"""The virtual vocabulary: token ``n`` is the word ``tn``, so text can be exact in tokens.

Words of the vocabulary count as one token each. The simulated model has no tokenizer for anything
else; any other piece between white space counts one token for each four bytes begun, the usual
rule of thumb for English text.
"""

from __future__ import annotations

import array
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = re.compile(r"t(\d{1,9})$")
_PIECE = re.compile(r"\S+")
_STRIDE = 7919  # prime, so that the answer visits the whole vocabulary


def token_text(token: int) -> str:
    """The text that a token adds to an answer."""
    return f" t{token}"


def encode(text: str, vocab_size: int) -> list[int]:
    """The tokens of a text: exact for words of the vocabulary, else estimated from bytes."""
    tokens: list[int] = []
    for piece in _PIECE.findall(text):
        word = _WORD.match(piece)
        if word is not None and int(word[1]) < vocab_size:
            tokens.append(int(word[1]))
        else:
            data = piece.encode()
            tokens += [zlib.crc32(data[i : i + 4]) % vocab_size for i in range(0, len(data), 4)]
    return tokens


@dataclass(frozen=True, slots=True)
class VirtualTokenizer:
    """The virtual vocabulary as a tokenizer, for prompts sent as text."""

    vocab_size: int
    special_ids: frozenset[int] = frozenset()

    def encode(self, text: str) -> list[int]:
        """The token ids of ``text``."""
        return encode(text, self.vocab_size)

    def decode(self, ids: Sequence[int]) -> str:
        """The words of token ids."""
        return "".join(token_text(token) for token in ids).strip()


@dataclass(frozen=True, slots=True)
class Answer:
    """The tokens that a prompt is answered with: arbitrary, but always the same."""

    first: int
    vocab_size: int

    @classmethod
    def to(cls, prompt: Sequence[int], seed: int, vocab_size: int) -> Answer:
        """The answer to ``prompt`` under a sampling ``seed``."""
        return cls(zlib.crc32(array.array("q", prompt).tobytes(), seed), vocab_size)

    def token(self, index: int) -> int:
        """The token at a position of the answer."""
        return (self.first + index * _STRIDE) % self.vocab_size
