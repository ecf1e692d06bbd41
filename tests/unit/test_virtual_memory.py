"""KV-cache sizing: vLLM's arithmetic and vLLM's refusals."""

from __future__ import annotations

import pytest

from fairshare.virtual.memory import GIB, OVERHEAD_BYTES, MemoryPlan, StartError, plan_memory
from fairshare.virtual.models import virtual_model

MODEL = virtual_model("qwen3-4b")


def plan(
    total: int = 40 * GIB,
    free: int | None = None,
    length: int = 8192,
    utilization: float | None = None,
    kv: int | None = None,
) -> MemoryPlan:
    """A plan for Qwen3-4B."""
    return plan_memory(
        MODEL,
        total_bytes=total,
        free_bytes=total if free is None else free,
        max_model_len=length,
        utilization=utilization,
        kv_bytes=kv,
    )


def test_utilization_of_the_total_less_weights_is_cache() -> None:
    """At 0.45 of 40 GiB the cache is what weights and overhead leave, in whole blocks."""
    made = plan(utilization=0.45)
    budget = 0.45 * 40 * GIB
    block = 16 * MODEL.kv_bytes_per_token
    left = budget - MODEL.weight_bytes - OVERHEAD_BYTES
    assert made.kv_blocks == left // block
    assert budget - block < made.claimed_bytes <= budget


def test_asking_for_bytes_gives_those_bytes() -> None:
    """An explicit cache size is taken, whatever the default utilization would be."""
    made = plan(free=20 * GIB, kv=4 * GIB)
    assert made.kv_blocks == 4 * GIB // (16 * MODEL.kv_bytes_per_token)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"free": 10 * GIB}, r"Free memory on device cuda:0 \(10.00 GiB/40.00 GiB\)"),
        ({"free": 10 * GIB, "utilization": 0.9, "kv": GIB}, "Free memory on device"),
        ({"free": 10 * GIB, "kv": 4 * GIB}, "OutOfMemoryError: CUDA out of memory"),
        ({"total": 8 * GIB, "utilization": 1.0}, "OutOfMemoryError: CUDA out of memory"),
        ({"utilization": 0.2}, "No available memory for the cache blocks"),
        ({"utilization": 0.3, "length": 40960}, "To serve at least one request"),
    ],
)
def test_what_does_not_fit_is_refused_in_vllms_words(case: dict[str, float], message: str) -> None:
    """Each way of not fitting gives the line that vLLM's log would have."""
    with pytest.raises(StartError, match=message):
        plan(**case)  # type: ignore[arg-type]  # one table for several parameter types
