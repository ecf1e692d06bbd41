"""The virtual vocabulary: text that is exact in tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairshare.virtual.tokens import Answer, encode, token_text

VOCABULARY = 1000


@given(st.lists(st.integers(0, VOCABULARY - 1)))
def test_text_of_the_vocabulary_comes_back_token_by_token(tokens: list[int]) -> None:
    """What the server writes is read back as the same tokens."""
    assert encode("".join(map(token_text, tokens)), VOCABULARY) == tokens


def test_other_text_counts_a_token_for_each_four_bytes() -> None:
    """Any other piece between white space costs its bytes over four, rounded up."""
    assert len(encode("hi", VOCABULARY)) == 1
    assert len(encode("hello world", VOCABULARY)) == 4
    assert len(encode("ää", VOCABULARY)) == 1
    assert len(encode("t1000 t999", VOCABULARY)) == 2 + 1
    assert encode(" \n", VOCABULARY) == []


@given(st.lists(st.integers(0, VOCABULARY - 1), min_size=1), st.integers(0, 2**31))
def test_answers_are_repeatable_and_in_the_vocabulary(prompt: list[int], seed: int) -> None:
    """The same prompt and seed give the same answer, of valid tokens."""
    one, two = (Answer.to(prompt, seed, VOCABULARY) for _ in range(2))
    tokens = [one.token(i) for i in range(50)]
    assert tokens == [two.token(i) for i in range(50)]
    assert all(0 <= token < VOCABULARY for token in tokens)
    assert len(set(tokens)) == 50


def test_other_prompts_and_seeds_have_other_answers() -> None:
    """Neither prompt nor seed is ignored."""
    first = [Answer.to(p, s, 151936).token(0) for p, s in (([1, 2], 0), ([2, 1], 0), ([1, 2], 1))]
    assert len(set(first)) == 3
