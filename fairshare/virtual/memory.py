"""Does it fit? vLLM's sizing of the KV cache against the simulated device's memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fairshare.virtual.models import VirtualModel
from fairshare.virtual.prefixes import BLOCK_TOKENS

GIB = 1024**3
OVERHEAD_BYTES = 1_600_000_000  # context, activations, graphs; assumed (docs/virtual-gpu.md)
DEFAULT_UTILIZATION = 0.92  # vLLM's


class StartError(Exception):
    """The engine cannot start; the text is what vLLM would say."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """KV blocks the engine gets, and all bytes the process holds."""

    kv_blocks: int
    claimed_bytes: int


def plan_memory(
    model: VirtualModel,
    *,
    total_bytes: int,
    free_bytes: int,
    max_model_len: int,
    utilization: float | None,
    kv_bytes: int | None,
) -> MemoryPlan:
    """Size the KV cache as vLLM does: utilisation of the total, or the bytes that were asked for.

    Asking for bytes leaves out the check of the utilisation unless that is given too.

    Raises:
        StartError: weights and cache do not fit, or the cache cannot hold one longest request.
    """
    budget = math.ceil(total_bytes * (utilization or DEFAULT_UTILIZATION))
    if budget > free_bytes and (kv_bytes is None or utilization is not None):
        raise StartError(
            f"ValueError: Free memory on device cuda:0 ({_gib(free_bytes)}/{_gib(total_bytes)}) on "
            f"startup is less than desired GPU memory utilization "
            f"({utilization or DEFAULT_UTILIZATION}, {_gib(budget)}). Decrease GPU memory "
            "utilization or reduce GPU memory used by other processes."
        )
    needed = model.weight_bytes + OVERHEAD_BYTES
    if needed > free_bytes or (kv_bytes is not None and needed + kv_bytes > free_bytes):
        wanted = model.weight_bytes if kv_bytes is None else needed + kv_bytes
        raise StartError(
            f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate {_gib(wanted)}. "
            f"GPU 0 has a total capacity of {_gib(total_bytes)} of which "
            f"{_gib(free_bytes)} is free."
        )
    available = budget - needed if kv_bytes is None else kv_bytes
    block_bytes = BLOCK_TOKENS * model.kv_bytes_per_token
    blocks = available // block_bytes
    if blocks <= 0:
        raise StartError(
            "ValueError: No available memory for the cache blocks. Try increasing "
            "`gpu_memory_utilization` when initializing the engine."
        )
    if blocks * BLOCK_TOKENS < max_model_len:
        longest = max_model_len * model.kv_bytes_per_token
        raise StartError(
            f"ValueError: To serve at least one request with the models's max seq len "
            f"({max_model_len}), ({_gib(longest)} KV cache is needed, which is larger than the "
            f"available KV cache memory ({_gib(available)}). Based on the available memory, the "
            f"estimated maximum model length is {blocks * BLOCK_TOKENS}. Try increasing "
            "`gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine."
        )
    return MemoryPlan(blocks, needed + blocks * block_bytes)


def _gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB"
