"""The models that fairshare makes itself: small random Llamas with a byte-level tokenizer.

They exist so that a real engine can be measured without downloading anything. One printable ASCII
character is one token, so text of exactly ``n`` tokens is ``n`` characters; the ids above the bytes
decode to syllables that encoding never produces.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairshare import assets

VOCAB_SIZE = 512
MAX_POSITIONS = 8192
END_OF_TEXT, IM_START, IM_END = 256, 257, 258
_SPECIAL = {END_OF_TEXT: "<|endoftext|>", IM_START: "<|im_start|>", IM_END: "<|im_end|>"}
_HEAD_DIM = 64
_RECIPE = 1  # part of the folder's name: raise it when what is made here changes
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a made model; attention heads are 64 wide, each with its own keys and values."""

    hidden: int
    layers: int
    feed_forward: int


SHAPES = {"tiny": Shape(256, 4, 512), "small": Shape(512, 8, 1536)}


def builtin_model(name: str) -> Path:
    """The folder of a made model, built on first use.

    Safe against another process that builds the same one: each builds in a private folder, the
    first rename wins and the contents are equal anyway (the weights come from a fixed seed).
    """
    parent = assets.cache_dir() / "models"
    folder = parent / f"{name}-{_RECIPE}"
    if (folder / "config.json").is_file():
        return folder
    parent.mkdir(exist_ok=True, mode=0o700)
    building = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
    try:
        _write_model(building, SHAPES[name])
        building.chmod(0o755)
        try:
            building.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _write_model(folder: Path, shape: Shape) -> None:
    from safetensors.numpy import save_file  # noqa: PLC0415  (only when a model is made)

    save_file(dict(_weights(shape)), folder / "model.safetensors", metadata={"format": "pt"})
    eos = [END_OF_TEXT, IM_END]
    generation = {"bos_token_id": END_OF_TEXT, "eos_token_id": eos, "pad_token_id": END_OF_TEXT}
    _write_json(folder / "generation_config.json", generation)
    _write_tokenizer(folder)
    # Last, since its presence is what marks the folder as usable.
    _write_json(folder / "config.json", _config(shape) | generation)


def _config(shape: Shape) -> dict[str, Any]:
    heads = shape.hidden // _HEAD_DIM
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": _HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": MAX_POSITIONS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "bfloat16",
        "vocab_size": VOCAB_SIZE,
    }


def _weights(shape: Shape) -> Iterator[tuple[str, NDArray[np.float16]]]:
    rng = np.random.default_rng(20_24)
    hidden, wide = shape.hidden, shape.feed_forward

    def matrix(rows: int, columns: int) -> NDArray[np.float16]:
        values: NDArray[np.float64] = rng.standard_normal((rows, columns)) / columns**0.5
        return values.astype(np.float16)

    ones = np.ones(hidden, np.float16)
    yield "model.embed_tokens.weight", matrix(VOCAB_SIZE, hidden)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{prefix}.self_attn.{projection}.weight", matrix(hidden, hidden)
        yield f"{prefix}.mlp.gate_proj.weight", matrix(wide, hidden)
        yield f"{prefix}.mlp.up_proj.weight", matrix(wide, hidden)
        yield f"{prefix}.mlp.down_proj.weight", matrix(hidden, wide)
        yield f"{prefix}.input_layernorm.weight", ones.copy()
        yield f"{prefix}.post_attention_layernorm.weight", ones.copy()
    yield "model.norm.weight", ones
    head = matrix(VOCAB_SIZE, hidden)
    # Control characters, broken UTF-8 and special tokens are never the likeliest next token, so
    # greedy answers are printable text and end where max_tokens says.
    head[:32] = head[127:259] = 0
    yield "lm_head.weight", head


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import (  # noqa: PLC0415  (only when a model is made)
        AddedToken,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
    )

    vocabulary = {_byte_symbol(byte): byte for byte in range(256)}
    vocabulary |= {text: token for token, text in _SPECIAL.items()}
    vocabulary |= {text: 259 + i for i, text in enumerate(_syllables(VOCAB_SIZE - 259))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True, normalized=False) for text in _SPECIAL.values()]
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_POSITIONS,
        "bos_token": _SPECIAL[END_OF_TEXT],
        "eos_token": _SPECIAL[IM_END],
        "pad_token": _SPECIAL[END_OF_TEXT],
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": _CHAT_TEMPLATE,
    }
    _write_json(folder / "tokenizer_config.json", settings)


def _byte_symbol(byte: int) -> str:
    """The printable character that stands for a byte in byte-level tokenizers.

    Printable Latin-1 stands for itself; the others are counted upwards from U+0100.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in printable:
        return chr(byte)
    others = [other for other in range(256) if other not in printable]
    return chr(256 + others.index(byte))


def _syllables(count: int) -> Iterator[str]:
    """Distinct made-up syllables, each after a blank (which byte-level vocabularies write Ġ)."""
    texts = (
        f"Ġ{first}{vowel}{last}"
        for last in ("", "n", "r", "s")
        for first in "bcdfghklmnprstvwz"
        for vowel in "aeiou"
    )
    return (text for text, _ in zip(texts, range(count), strict=False))


def _write_json(path: Path, value: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
