"""From a model's name to a folder and its facts."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from fairshare.errors import SpecError
from fairshare.serving.builtin_models import (
    END_OF_TEXT,
    IM_END,
    IM_START,
    VOCAB_SIZE,
    builtin_model,
)
from fairshare.serving.models import resolve_model


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRSHARE_CACHE_DIR", str(tmp_path / "cache"))


def _write_config(folder: Path, **values: object) -> Path:
    folder.mkdir()
    config = {
        "vocab_size": 1000,
        "max_position_embeddings": 2048,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_size": 256,
        "eos_token_id": 7,
    }
    (folder / "config.json").write_text(json.dumps(config | values), "utf-8")
    return folder


def test_tiny_is_made_with_the_stated_size() -> None:
    """The made model has the size that its name promises, and says its KV bytes per token."""
    tiny = resolve_model("tiny")
    assert (tiny.vocab_size, tiny.max_model_len, tiny.served_name) == (VOCAB_SIZE, 8192, "tiny")
    assert tiny.kv_bytes_per_token == 2 * 4 * 256 * 2  # keys and values, layers, width, bytes
    assert tiny.eos_token_ids == (END_OF_TEXT, IM_END)


def test_a_made_model_is_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two caches get the same weights byte for byte, since the seed is fixed."""
    first = builtin_model("tiny") / "model.safetensors"
    monkeypatch.setenv("FAIRSHARE_CACHE_DIR", str(tmp_path / "other"))
    second = builtin_model("tiny") / "model.safetensors"
    assert first != second
    assert first.read_bytes() == second.read_bytes()


def test_processes_that_race_get_one_whole_model(tmp_path: Path) -> None:
    """Several processes may make the model at once; all end with the same folder and no litter."""
    with ProcessPoolExecutor(3) as pool:
        folders = set(pool.map(builtin_model, ["tiny"] * 6))
    assert len(folders) == 1
    assert [path.name for path in (tmp_path / "cache/models").iterdir()] == [folders.pop().name]


def test_text_of_n_characters_is_n_tokens() -> None:
    """Text of exactly n tokens is n printable ASCII characters, whatever they are."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(builtin_model("tiny") / "tokenizer.json"))
    text = "".join(chr(code) for code in range(32, 127))
    ids = tokenizer.encode(text).ids
    assert ids == list(range(32, 127))
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode("<|im_start|>x<|im_end|>").ids == [IM_START, ord("x"), IM_END]
    assert tokenizer.decode([VOCAB_SIZE - 1]).strip()


def test_greedy_answers_of_a_made_model_do_not_end_early() -> None:
    """The head gives no special token any weight: an answer ends where max_tokens says."""
    from safetensors.numpy import load_file

    head = load_file(builtin_model("tiny") / "model.safetensors")["lm_head.weight"]
    assert head.shape == (VOCAB_SIZE, 256)
    assert not head[END_OF_TEXT : IM_END + 1].any()
    assert head[ord("a")].any()


def test_a_folder_is_a_model(tmp_path: Path) -> None:
    """A folder with a config.json is taken as it is, by its absolute path."""
    folder = _write_config(tmp_path / "mine", num_key_value_heads=2)
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    facts = resolve_model(str(folder))
    assert facts.path == str(folder.resolve())
    assert facts.served_name == "mine"
    assert facts.kv_bytes_per_token == 2 * 2 * 2 * 64 * 2
    assert facts.weight_bytes == 100
    assert facts.eos_token_ids == (7,)


@pytest.mark.parametrize("special", [{"sliding_window": 512}, {"kv_lora_rank": 64}])
def test_unusual_attention_has_no_stated_kv_size(
    tmp_path: Path, special: dict[str, object]
) -> None:
    """Where the KV bytes per token cannot be computed simply, none are claimed."""
    folder = _write_config(tmp_path / "odd", **special)
    assert resolve_model(str(folder)).kv_bytes_per_token is None


def test_the_fingerprint_follows_the_weights(tmp_path: Path) -> None:
    """Other weights in the same folder make another fingerprint."""
    folder = _write_config(tmp_path / "mine")
    before = resolve_model(str(folder)).fingerprint
    (folder / "model.safetensors").write_bytes(b"x")
    assert resolve_model(str(folder)).fingerprint != before


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("/no/such/model", "there is no model /no/such/model"),
        ("./neither", "there is no model ./neither"),
        ("tinny", "did you mean tiny"),
        ("nobody/has-this", "not in the local Hugging Face cache"),
    ],
)
def test_a_model_that_is_not_there_is_named(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing model is an error that names it and says what can be given instead."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=says) as caught:
        resolve_model(name, allow_download=False)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "has no config.json"),
        ("{", "cannot be read"),
        ("[]", "does not hold a JSON object"),
        ('{"vocab_size": 5}', "does not say max_position_embeddings"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(
    content: str | None, says: str, tmp_path: Path
) -> None:
    """A folder without a usable config.json is refused, and what is missing is said."""
    folder = tmp_path / "broken"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content, "utf-8")
    with pytest.raises(SpecError, match=says):
        resolve_model(str(folder))


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    """A path to a file gets the hint to name its folder."""
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(SpecError, match="name the folder"):
        resolve_model(str(path))


def test_a_config_nested_without_end_is_refused(tmp_path: Path) -> None:
    """Thousands of brackets are a message, not a traceback."""
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(SpecError, match="cannot be read"):
        resolve_model(str(tmp_path))
