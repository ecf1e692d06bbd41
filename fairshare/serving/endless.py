"""A model without an end token, for engines that cannot be told to pass over it.

An answer that ends early is no fault of the sharing, and makes cells differ by chance. The folder
holds links to the model's files, and configurations of its own in which no token ends an answer.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairshare import assets
from fairshare.errors import SpecError
from fairshare.records import fingerprint
from fairshare.serving.models import ModelFacts

_CONFIGURATIONS = ("config.json", "generation_config.json")
_END = "eos_token_id"


def without_end_token(facts: ModelFacts) -> ModelFacts:
    """The same model in a folder of ours, made on first use, where no token ends an answer.

    Raises:
        SpecError: a configuration of the model cannot be read.
    """
    source = Path(facts.path)
    texts = {
        name: _without_end(path) for name in _CONFIGURATIONS if (path := source / name).is_file()
    }
    parent = assets.cache_dir() / "models"
    parent.mkdir(exist_ok=True, mode=0o700)
    folder = parent / f"endless-{fingerprint([str(source), facts.fingerprint, texts])[:16]}"
    if not folder.is_dir():
        building = Path(tempfile.mkdtemp(prefix=".endless-", dir=parent))
        for path in source.iterdir():
            if path.name not in texts:
                (building / path.name).symlink_to(path.resolve())
        for name, text in texts.items():
            (building / name).write_text(text, "utf-8")
        try:
            os.rename(building, folder)  # noqa: PTH104  (must fail where another was faster)
        except OSError:
            shutil.rmtree(building)
    return replace(facts, path=str(folder), eos_token_ids=())


def _without_end(path: Path) -> str:
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} cannot be read: {error}") from None
    language = config.get("text_config")  # models that also see or hear
    for part in (config, language):
        if isinstance(part, dict):
            part.pop(_END, None)
    return json.dumps(config)
