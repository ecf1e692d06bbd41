"""The model that engines get which cannot pass over its end token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fairshare.errors import SpecError
from fairshare.serving.endless import without_end_token
from fairshare.serving.models import ModelFacts, resolve_model


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelFacts:
    """A folder of a model with an end token in both configurations."""
    monkeypatch.setenv("FAIRSHARE_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "m"
    folder.mkdir()
    config = {"vocab_size": 9, "max_position_embeddings": 64, "eos_token_id": [3, 4]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text('{"eos_token_id": 3, "bos_token_id": 1}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return resolve_model(str(folder))


def test_no_token_ends_an_answer(model: ModelFacts) -> None:
    """Both configurations lack it, everything else is there, and the original is as it was."""
    endless = without_end_token(model)
    assert endless.eos_token_ids == ()
    found = {path.name: path.read_bytes() for path in Path(endless.path).iterdir()}
    assert json.loads(found.pop("config.json")) == {"vocab_size": 9, "max_position_embeddings": 64}
    assert json.loads(found.pop("generation_config.json")) == {"bos_token_id": 1}
    assert found == {"model.safetensors": b"weights"}
    assert resolve_model(model.path) == model
    assert (endless.served_name, endless.fingerprint) == (model.served_name, model.fingerprint)


def test_it_is_made_once(model: ModelFacts) -> None:
    """The second run finds the folder of the first; a changed model has another."""
    first = without_end_token(model).path
    assert without_end_token(model).path == first
    (Path(model.path) / "generation_config.json").write_text("{}")
    assert without_end_token(model).path != first
    assert len(list(Path(first).parent.iterdir())) == 2


def test_a_damaged_configuration_is_named(model: ModelFacts) -> None:
    """The message says which file."""
    (Path(model.path) / "generation_config.json").write_text("{")
    with pytest.raises(SpecError, match=r"generation_config\.json cannot be read"):
        without_end_token(model)
