"""Which model a name means, and how small its weights are."""

from __future__ import annotations

import pytest

from fairshare.analysis.limits import known_model, weight_bits


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama-3-8b"),
        ("/data/models/Llama-3.1-8B/", "llama-3-8b"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2-7b"),
        ("mistralai/Mistral-7B-v0.3", "mistral-7b"),
        ("Qwen/Qwen3-0.6B", "qwen3-0.6b"),
        ("Qwen/Qwen3-4B-Instruct-2507-FP8", "qwen3-4b"),
        ("llama-3-70b", "llama-3-70b"),
        ("meta-llama/Llama-3.2-1B", None),
        ("mistralai/Mixtral-8x7B-v0.1", None),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", None),
        ("tiny", None),
        ("", None),
    ],
)
def test_a_model_is_known_by_its_makers_name(name: str, model: str | None) -> None:
    """Names of repositories and folders mean the model of the same family and size, or none."""
    found = known_model(name)
    assert (found.name if found else None) == model


@pytest.mark.parametrize(
    ("name", "args", "bits"),
    [
        ("llama-3-8b", {}, 16),
        ("Llama-3-8B-AWQ", {}, 4),
        ("llama-3-8b", {"quantization": "gptq_marlin"}, 4),
        ("Qwen3-4B-FP8", {}, 8),
        ("llama-3-8b", {"quantization": "fp8"}, 8),
        ("llama-3-8b", {"quantization": "something-new"}, 4),
    ],
)
def test_bits_follow_from_name_and_arguments(name: str, args: dict[str, str], bits: float) -> None:
    """An unknown way to quantise counts as the smallest, so that nothing is accused wrongly."""
    assert weight_bits(name, args) == bits
