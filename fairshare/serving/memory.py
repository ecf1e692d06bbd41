"""How much GPU memory a server is told to use, so that it starts within its share and keeps to it.

vLLM takes ``--gpu-memory-utilization`` as a fraction of the total that CUDA tells its process, and
does not start when less than that is free. What it sees differs by how the GPU is shared:

============  ==================  =============================================
shared by     total               free at the start, with ``C`` of its context
============  ==================  =============================================
MPS cap B     the whole GPU T     B - C
MIG slice B   the slice, T = B    B - C
in turn       the whole GPU T     T less what the servers before have taken
not at all    the whole GPU T     T - C, with B = T
============  ==================  =============================================

Each server is given ``U = min(0.9 B, B - C)``, so that ``T x utilization <= U`` is free: under a
cap and in a slice since ``U <= B - C``; in turn since each server before has taken ``U + C <= B``
at most, and the budgets B sum up to no more than T.

Where others allocate on the same GPU, measuring goes wrong (a neighbour's memory is taken for one's
own, or its release ends the start), so the KV cache is given in bytes: ``U`` less the weights, the
activations of the largest step, the sampler's copies of the logits, and the CUDA graphs. These are
upper estimates. In a slice and alone vLLM measures them itself, which is more exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

from fairshare.devices.constants import GIB, MIB
from fairshare.devices.device import Device
from fairshare.errors import InfeasibleError
from fairshare.serving.models import ModelFacts
from fairshare.sharing.plan import Slot
from fairshare.sharing.slots import Binding, binding_of
from fairshare.spec.launcher import DeviceKind, Launcher
from fairshare.units import format_bytes

HEADROOM = 0.9  # of the budget; the rest is fragmentation and what libraries allocate by the way
# What a CUDA context took of a limit in NVIDIA's own table of MPS memory limits: 256 to 512 MiB.
CONTEXT_BYTES = 512 * MIB
CUDA_GRAPHS_BYTES = GIB  # vLLM logs 0.3 to 1 GiB for models of 1 to 14 billion weights
# Of each entry of the logits: half and full precision, sorted, their 64-bit places, two sums.
_SAMPLER_BYTES = 2 + 4 + 4 + 8 + 4 + 4
_STEP = 10_000  # utilization is written with four digits, rounded down


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """What a server may hold, what CUDA tells it as the total, what of the budget it is to use.

    ``utilization`` is the usable part as vLLM's fraction of the total.
    """

    budget_bytes: int
    total_bytes: int
    usable_bytes: int
    utilization: float


@dataclass(frozen=True, slots=True)
class Needs:
    """What a server holds beside its KV cache, in bytes; upper estimates but for the weights."""

    weights: int
    activations: int
    logits: int
    graphs: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.activations + self.logits + self.graphs

    def __str__(self) -> str:
        return (
            f"{format_bytes(self.weights)} of weights, {format_bytes(self.activations)} of "
            f"activations, {format_bytes(self.logits)} of logits and {format_bytes(self.graphs)} "
            "of CUDA graphs"
        )


def gpu_memory(slot: Slot, device: Device) -> GpuMemory:
    """The memory of a slot on a GPU (see the module)."""
    budget = slot.memory_bytes
    if budget is None:
        budget = int(slot.memory_fraction * device.memory_bytes)
    total = budget if binding_of(slot) is Binding.MIG else device.memory_bytes
    usable = max(0, min(int(HEADROOM * budget), budget - CONTEXT_BYTES))
    fraction = math.floor(usable / total * _STEP + 1e-6) / _STEP if total else 0.0
    return GpuMemory(budget, total, usable, fraction)


def needs_of(launcher: Launcher, model: ModelFacts, device: Device) -> Needs | None:
    """What vLLM holds of a GPU beside the cache; None where that cannot be told from here."""
    width, weights = model.activation_bytes_per_token, model.weight_bytes
    converted = str(launcher.args.get("dtype") or "").startswith("float32")
    if width is None or weights is None or converted or _is_parallel(launcher):
        return None
    tokens, sequences = _largest_step(launcher, device)
    return Needs(
        weights=weights,
        activations=tokens * width,
        logits=sequences * model.vocab_size * _SAMPLER_BYTES,
        graphs=0 if launcher.args.get("enforce_eager") is True else CUDA_GRAPHS_BYTES,
    )


def cache_bytes(launcher: Launcher, slot: Slot, model: ModelFacts, device: Device) -> int | None:
    """The KV cache that fits beside all else; None where the engine measures better itself.

    Zero or less: nothing fits.
    """
    needs = needs_of(launcher, model, device)
    if needs is None or slot.adapters or not _has_neighbours(slot, device):
        return None
    return gpu_memory(slot, device).usable_bytes - needs.total


def check_gpu_memory(
    launcher: Launcher, slot: Slot, model: ModelFacts, device: Device, length: int
) -> None:
    """Make sure that the model and one sequence of ``length`` tokens fit a slot of a GPU.

    Raises:
        InfeasibleError: they do not, with the sum; or the launcher's own fraction exceeds it.
    """
    memory = gpu_memory(slot, device)
    stated = launcher.args.get("gpu_memory_utilization")
    if isinstance(stated, int | float):
        asked = int(float(stated) * memory.total_bytes)
        if asked > memory.budget_bytes - CONTEXT_BYTES:
            raise InfeasibleError(
                f"args.gpu_memory_utilization {stated} is {format_bytes(asked)} of the "
                f"{format_bytes(memory.total_bytes)} that server {slot.name} sees, but its share "
                f"is {format_bytes(memory.budget_bytes)}",
                hint=f"leave it out ({memory.utilization:.4f} is then given), or lower it",
            )
        return
    sequence = length * (model.kv_bytes_per_token or 0)
    cache = f"{format_bytes(sequence)} of KV cache for one sequence of {length} tokens"
    is_stated = launcher.kv_bytes is not None or "kv_cache_memory_bytes" in launcher.args
    given = None if is_stated else cache_bytes(launcher, slot, model, device)
    if given is not None:
        if given < max(sequence, 1):
            _refuse(slot, memory, f"{needs_of(launcher, model, device)}, and {cache}")
        return
    weights, stated = model.weight_bytes or 0, int((launcher.kv_bytes or 0) * slot.memory_fraction)
    if stated > sequence:
        cache = f"{format_bytes(stated)} of KV cache, its part of the launcher's kv_bytes"
    if weights + max(sequence, stated) > memory.usable_bytes:
        _refuse(slot, memory, f"{format_bytes(weights)} of weights, and {cache}")


def _refuse(slot: Slot, memory: GpuMemory, needs: str) -> NoReturn:
    raise InfeasibleError(
        f"server {slot.name} may hold {format_bytes(memory.budget_bytes)}, of which "
        f"{format_bytes(memory.usable_bytes)} are usable: too little for {needs}",
        hint="take a smaller --model, fewer tenants or a larger share; or lower max_model_len, "
        "max_num_seqs or max_num_batched_tokens (--engine-arg); or state the cache as kv_bytes",
    )


def _has_neighbours(slot: Slot, device: Device) -> bool:
    """Whether others allocate where this server would measure."""
    if device.kind is not DeviceKind.CUDA or binding_of(slot) is Binding.MIG:
        return False
    return binding_of(slot) is Binding.MPS or slot.memory_fraction < 1


def _largest_step(launcher: Launcher, device: Device) -> tuple[int, int]:
    """Tokens and sequences of a step: the launcher's, else vLLM's defaults for such a GPU."""
    if device.memory_bytes >= 160 * GIB:
        defaults = 16384, 1024
    elif device.memory_bytes >= 70 * GIB and "a100" not in device.name.lower():
        defaults = 8192, 1024
    else:
        defaults = 2048, 256
    names = "max_num_batched_tokens", "max_num_seqs"
    given = [launcher.args.get(name) for name in names]
    tokens, sequences = (
        value if isinstance(value, int) else default
        for value, default in zip(given, defaults, strict=True)
    )
    return tokens, sequences


def _is_parallel(launcher: Launcher) -> bool:
    names = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    return any(launcher.args.get(name) not in (None, 1) for name in names)
