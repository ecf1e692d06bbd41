"""Random prompts are exact in tokens and share no prefix."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from fairshare.errors import SpecError
from fairshare.virtual.tokens import VirtualTokenizer
from fairshare.workload.prompts import Vocabulary, load_vocabulary
from fairshare.workload.tokenizer import load_tokenizer


def _corpus() -> list[str]:
    rng = random.Random(7)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 7))) for _ in range(800)]
    return [" ".join(rng.choices(words, k=40)) for _ in range(400)]


def _byte_level(vocabulary_size: int) -> FastTokenizer:
    tokenizer = FastTokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer


def _bytes_without_merges() -> FastTokenizer:
    return _byte_level(258)


def _byte_level_bpe() -> FastTokenizer:
    return _byte_level(2000)


def _sentencepiece_like() -> FastTokenizer:
    tokenizer = FastTokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=2000, special_tokens=["<unk>", "<s>"], show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer


def _across_words() -> FastTokenizer:
    """Nothing splits the text first, so merges may reach across spaces."""
    tokenizer = FastTokenizer(models.BPE(unk_token="<unk>"))
    trainer = trainers.BpeTrainer(
        vocab_size=3000, special_tokens=["<unk>"], show_progress=False, max_token_length=12
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer


def _save(tokenizer: FastTokenizer, folder: Path) -> Vocabulary:
    tokenizer.save(str(folder / "tokenizer.json"))
    return load_vocabulary(str(folder), tokenizer.get_vocab_size())


KINDS = [_bytes_without_merges, _byte_level_bpe, _sentencepiece_like, _across_words]


@pytest.mark.parametrize("make", KINDS)
def test_text_has_exactly_as_many_tokens_as_asked(
    make: Callable[[], FastTokenizer], tmp_path: Path
) -> None:
    """Whatever the tokenizer, it encodes every text to the asked number of tokens."""
    tokenizer = make()
    vocabulary = _save(tokenizer, tmp_path)
    rng = np.random.default_rng(1)
    for n in [1, 2, 3, 16, 17, 100, *rng.integers(1, 900, 60).tolist()]:
        text = vocabulary.text(rng, n)
        assert len(tokenizer.encode(text, add_special_tokens=False).ids) == n
        assert text == text.strip()


@pytest.mark.parametrize("make", KINDS)
def test_texts_differ_within_sixteen_tokens(
    make: Callable[[], FastTokenizer], tmp_path: Path
) -> None:
    """No two texts share a first block that a prefix cache could serve."""
    tokenizer = make()
    vocabulary = _save(tokenizer, tmp_path)
    rng = np.random.default_rng(2)
    heads = {
        tuple(tokenizer.encode(vocabulary.text(rng, 32), add_special_tokens=False).ids[:16])
        for _ in range(500)
    }
    assert len(heads) == 500


def test_text_is_exact_for_the_simulated_gpu_too() -> None:
    """The virtual server counts exactly the tokens that were asked for."""
    vocabulary = Vocabulary(32_000, frozenset(), VirtualTokenizer(32_000))
    rng = np.random.default_rng(6)
    assert [vocabulary.count(vocabulary.text(rng, n)) for n in range(1, 60)] == list(range(1, 60))


class _Stuck:
    """A tokenizer for which every text is one token."""

    special_ids: frozenset[int] = frozenset()

    def encode(self, text: str) -> list[int]:
        return [0] if text else []

    def decode(self, ids: Sequence[int]) -> str:
        return "word"


def test_a_tokenizer_without_separable_words_is_refused() -> None:
    """Inexact text is never made; the message says to use token ids."""
    with pytest.raises(SpecError, match="exact number of tokens"):
        Vocabulary(100, frozenset(), _Stuck()).text(np.random.default_rng(1), 5)


def test_text_without_a_tokenizer_is_refused() -> None:
    """Without a tokenizer nobody knows what a text's tokens are."""
    with pytest.raises(SpecError, match="need the model's tokenizer"):
        Vocabulary(100).text(np.random.default_rng(1), 5)


def test_ids_are_exact_in_range_and_never_special() -> None:
    """As many ids as asked, of the vocabulary, without the special ones."""
    special = frozenset({0, 1, 2, 999})
    vocabulary = Vocabulary(1000, special)
    rng = np.random.default_rng(4)
    drawn = [vocabulary.ids(rng, n) for n in (1, 7, 512, 4096)]
    assert [len(ids) for ids in drawn] == [1, 7, 512, 4096]
    seen = {token for ids in drawn for token in ids}
    assert all(type(token) is int for token in seen)
    assert seen <= set(range(1000)) - special
    assert len(seen) > 950


def test_id_prompts_differ_within_sixteen_tokens() -> None:
    """A thousand prompts have a thousand different first blocks, even in a small vocabulary."""
    vocabulary, rng = Vocabulary(258, frozenset({256, 257})), np.random.default_rng(5)
    assert len({tuple(vocabulary.ids(rng, 64)[:16]) for _ in range(1000)}) == 1000


def test_a_vocabulary_of_special_tokens_alone_is_refused() -> None:
    """There must be something to draw from."""
    with pytest.raises(SpecError, match="special"):
        Vocabulary(2, frozenset({0, 1}))


def test_a_models_special_tokens_are_known_from_its_folder(tmp_path: Path) -> None:
    """Tokens that the tokenizer calls special, and the model's end tokens, are left out."""
    tokenizer = _bytes_without_merges()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = load_vocabulary(str(tmp_path), 258, frozenset({257}))
    assert vocabulary.special_ids == {0, 1, 257}
    assert vocabulary.count("abc") == 3


def test_a_model_without_tokenizer_makes_ids(tmp_path: Path) -> None:
    """A simulated model has no tokenizer, and needs none for token ids."""
    vocabulary = load_vocabulary(str(tmp_path / "absent"), 100, frozenset({7}))
    assert 7 not in vocabulary.ids(np.random.default_rng(1), 5000)
    assert vocabulary.count("anything") == 0


def test_a_damaged_tokenizer_is_one_clear_message(tmp_path: Path) -> None:
    """A broken tokenizer.json is named, with what it should be."""
    (tmp_path / "tokenizer.json").write_text("{ not json")
    with pytest.raises(SpecError, match="no usable tokenizer") as caught:
        load_vocabulary(str(tmp_path), 100)
    assert "tokenizer.json" in str(caught.value.where)


def test_a_missing_model_folder_is_one_clear_message(tmp_path: Path) -> None:
    """A folder that is not there is said so, not a traceback of a library."""
    with pytest.raises(SpecError, match="does not exist"):
        load_tokenizer(tmp_path / "nothing")
