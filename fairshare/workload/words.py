"""Words of which any sequence has exactly as many tokens as words.

Decoding random token ids gives text that encodes to another number of tokens. But a tokenizer that
keeps two neighbouring words apart keeps a whole text of such words apart, since its merges act
between neighbours; so every ordered pair of the chosen words is tried once, and then text of
exactly n tokens costs no tokenizing at all.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass

from fairshare.errors import SpecError
from fairshare.workload.tokenizer import Tokenizer

_WANTED = 128
_ENOUGH = 16
_TRIED_IDS = 8192


@dataclass(frozen=True, slots=True)
class Words:
    """``joiner.join`` of any n of ``words`` is text of exactly n tokens."""

    words: tuple[str, ...]
    joiner: str


def find_words(tokenizer: Tokenizer, vocabulary_size: int) -> Words:
    """Words of one token each that stay apart beside each other.

    Tries words between spaces, and for tokenizers that know only characters, letters.

    Raises:
        SpecError: the tokenizer has too few of either.
    """
    stride = max(1, vocabulary_size // _TRIED_IDS)
    decoded = (tokenizer.decode([i]).strip() for i in range(0, vocabulary_size, stride))
    whole_words = (text for text in decoded if len(text) > 1 and text.isascii() and text.isalnum())
    for candidates, joiner in ((whole_words, " "), (iter(string.ascii_letters), "")):
        words = _separable(tokenizer, candidates, joiner)
        if len(words) >= _ENOUGH:
            return Words(tuple(words), joiner)
    raise SpecError(
        "no text of an exact number of tokens can be made with this model's tokenizer",
        hint="use a launcher and protocol that take prompts as token ids (api: completions)",
    )


def _separable(tokenizer: Tokenizer, candidates: Iterable[str], joiner: str) -> list[str]:
    words: list[str] = []
    taken = set(tokenizer.special_ids)  # words that share a token (of another case) are one
    for word in candidates:
        ids = tokenizer.encode(word)
        if len(ids) != 1 or ids[0] in taken or not _apart(tokenizer, word, [word], joiner):
            continue
        if _apart(tokenizer, word, [word, *words], joiner):
            words.append(word)
            taken.add(ids[0])
        if len(words) == _WANTED:
            break
    return words


def _apart(tokenizer: Tokenizer, word: str, others: list[str], joiner: str) -> bool:
    """Whether ``word`` stays a token of its own before and after each of the others."""
    text = joiner.join(part for other in others for part in (word, other))
    return len(tokenizer.encode(text)) == 2 * len(others)
