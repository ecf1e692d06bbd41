"""From the name of a model to a folder on this machine and the facts that a run needs of it."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairshare.errors import SpecError
from fairshare.records import fingerprint
from fairshare.serving.builtin_models import SHAPES, builtin_model

_HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
_BYTES_PER_VALUE = 2  # bfloat16 and float16, which engines use unless told otherwise


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model on this machine.

    ``path`` is its folder, ``served_name`` what clients ask for. ``kv_bytes_per_token`` assumes
    two bytes a value and is None where the attention is not plain (sliding windows, latent
    caches); ``weight_bytes`` is the size of the weight files, ``activation_bytes_per_token`` what a
    layer holds at most of each token of a step; ``fingerprint`` changes with the configuration or
    the weights.
    """

    name: str
    path: str
    served_name: str
    vocab_size: int
    max_model_len: int
    kv_bytes_per_token: int | None
    weight_bytes: int | None
    eos_token_ids: tuple[int, ...]
    fingerprint: str = ""
    activation_bytes_per_token: int | None = None


def resolve_model(name: str, *, allow_download: bool | None = None) -> ModelFacts:
    """The model of that name: ``tiny`` or ``small`` (made here), a folder, or a hub name.

    A hub name is looked up in the local Hugging Face cache first; ``allow_download`` (default:
    unless ``HF_HUB_OFFLINE`` is set) says whether it may be fetched.

    Raises:
        SpecError: there is no such model, or its folder is not one of a model.
    """
    if name in SHAPES:
        return _facts(name, builtin_model(name), served_name=name)
    path = Path(name).expanduser()
    if path.is_dir():
        folder = path.resolve()
        return _facts(name, folder, served_name=folder.name)
    if path.exists():
        raise SpecError(f"model {name} is a file; name the folder that holds its config.json")
    if name.startswith((".", "/", "~")) or not _HUB_NAME.match(name):
        raise _no_such_model(name)
    return _facts(name, _from_hub(name, allow_download), served_name=name)


def _no_such_model(name: str) -> SpecError:
    close = difflib.get_close_matches(name, SHAPES, n=1)
    hint = (
        f"did you mean {close[0]}?"
        if close
        else f"name a folder with a config.json, a hub name like org/model, or a model that "
        f"fairshare makes itself: {', '.join(SHAPES)}"
    )
    return SpecError(f"there is no model {name}", hint=hint)


def _from_hub(name: str, allow_download: bool | None) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (slow to import)

    if allow_download is None:
        allow_download = os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("", "0", "FALSE", "NO")
    reason = "it is not in the local Hugging Face cache"
    for local_only in (True, False) if allow_download else (True,):
        try:
            return Path(snapshot_download(name, local_files_only=local_only))
        except (OSError, ValueError, RuntimeError) as error:  # what huggingface_hub derives from
            if not local_only:
                reason = f"it could not be fetched: {str(error).splitlines()[0]}"
    hint = "fetch it once where there is a network (hf download NAME), or give a folder"
    raise SpecError(f"model {name} cannot be had: {reason}", hint=hint)


def _facts(name: str, folder: Path, *, served_name: str) -> ModelFacts:
    config = _read_config(folder)
    text = config.get("text_config")
    language = text if isinstance(text, dict) else config  # models that also see or hear
    weights = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    sizes = [[path.name, path.stat().st_size] for path in weights]
    eos = config.get("eos_token_id", language.get("eos_token_id"))
    eos_ids = eos if isinstance(eos, list) else [eos]
    return ModelFacts(
        name=name,
        path=str(folder),
        served_name=served_name,
        vocab_size=_whole(language, "vocab_size", folder),
        max_model_len=_whole(language, "max_position_embeddings", folder),
        kv_bytes_per_token=_kv_bytes_per_token(language),
        weight_bytes=sum(path.stat().st_size for path in weights) or None,
        eos_token_ids=tuple(token for token in eos_ids if isinstance(token, int)),
        fingerprint=fingerprint([config, sizes]),
        activation_bytes_per_token=_activation_bytes_per_token(language),
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        hint = "a model's folder holds config.json, the weights and the tokenizer"
        raise SpecError(f"{folder} is not a model: it has no config.json", hint=hint) from None
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise SpecError(f"{path} does not hold a JSON object")
    return config


def _whole(config: Mapping[str, Any], key: str, folder: Path) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise SpecError(f"{folder / 'config.json'} does not say {key}")
    return value


def _kv_bytes_per_token(config: Mapping[str, Any]) -> int | None:
    """2 (keys, values) x layers x KV heads x head width x bytes per value."""
    if config.get("sliding_window") or config.get("layer_types") or config.get("kv_lora_rank"):
        return None
    layers, heads = config.get("num_hidden_layers"), config.get("num_attention_heads")
    hidden = config.get("hidden_size")
    if not (isinstance(layers, int) and isinstance(heads, int) and isinstance(hidden, int)):
        return None
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or hidden // heads
    return int(2 * layers * kv_heads * head_dim * _BYTES_PER_VALUE)


def _activation_bytes_per_token(config: Mapping[str, Any]) -> int | None:
    """Both inputs of the gated product, and input, residual, queries and output beside them."""
    hidden, inner = config.get("hidden_size"), config.get("intermediate_size")
    expert, chosen = config.get("moe_intermediate_size"), config.get("num_experts_per_tok")
    if isinstance(expert, int) and isinstance(chosen, int):
        inner = expert * chosen
    if not (isinstance(hidden, int) and isinstance(inner, int)):
        return None
    return (2 * inner + 4 * hidden) * _BYTES_PER_VALUE
