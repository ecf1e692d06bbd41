"""A bench that starts real vLLM servers on the CPU, or skips where the engine is not installed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from safetensors.numpy import save_file
from vllm_bench import VllmBench

from fairshare.errors import PreflightError
from fairshare.events import EventLog
from fairshare.processes.scope import run_scope
from fairshare.serving.interpreter import engine_python
from fairshare.serving.models import resolve_model
from fairshare.spec.loading import load_launcher
from tests.workplace import cache_dir, workplace

__all__ = ["cache_dir", "workplace"]


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """The interpreter that has vLLM."""
    launcher, _ = load_launcher("vllm-cpu")
    try:
        return engine_python(launcher)
    except PreflightError as error:
        pytest.skip(f"vLLM is not installed here: {error.message}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(
    vllm_python: str, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[VllmBench]:
    """One run for all tests of a module; the cache is shared, as between real runs."""
    folder = tmp_path_factory.mktemp("vllm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAIRSHARE_CACHE_DIR", str(cache_dir))
        patch.setenv("FAIRSHARE_STATE_DIR", str(folder / "state"))
        launcher, _ = load_launcher("vllm-cpu")
        events: list[Mapping[str, Any]] = []
        log = EventLog()
        log.listen(events.append)
        async with run_scope(log) as scope:
            yield VllmBench(scope, folder / "servers", launcher, resolve_model("tiny"), events)


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LoRA adapter of rank 8 for the tiny model."""
    folder = tmp_path_factory.mktemp("adapter")
    rng = np.random.default_rng(1)
    weights = {}
    for layer in range(4):
        for projection in ("q_proj", "v_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{projection}"
            for part, shape in (("lora_A", (8, 256)), ("lora_B", (256, 8))):
                values = rng.standard_normal(shape).astype(np.float32)
                weights[f"{name}.{part}.weight"] = values
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 8,
        "lora_alpha": 16,
        "bias": "none",
        "target_modules": ["q_proj", "v_proj"],
        "base_model_name_or_path": "tiny",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    return folder
