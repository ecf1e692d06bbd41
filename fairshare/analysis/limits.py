"""What a device can do at most: floors and ceilings from peak figures, each with its arithmetic.

Peaks are taken whole, without any efficiency, so what lies beyond them is a contradiction and not
only a surprise. Formulas: docs/plausibility.md.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from fairshare.analysis.table import format_number, format_seconds
from fairshare.devices.constants import GpuSpec
from fairshare.virtual.models import VirtualModel, virtual_models

MARGIN = 1.03
"""How far beyond a limit a figure must lie to be called impossible: clocks are read, not known."""
CONTEXT_BYTES = 500_000_000  # what a CUDA process holds beside weights and cache, at the least
_CPU_FLOPS = 1024 * 6.2e9
"""Of one logical CPU at 16 bits, whatever its make: AMX does 1,024 operations on bfloat16 a cycle
(Intel 64 and IA-32 Architectures Optimization Reference Manual), and 6.2 GHz is the fastest clock
sold (Intel Core i9-14900KS). Real ones do far less."""
_FOUR_BITS = re.compile(r"awq|gptq|int4|w4a|4bit|4-bit|nf4|fp4|q4|bitsandbytes|gguf|exl2")
_SIZE = re.compile(r"[0-9.]+[bm]")
_EIGHT_BITS = re.compile(r"fp8|int8|w8a|8bit|8-bit|q8")


@dataclass(frozen=True, slots=True)
class Hardware:
    """The peaks of a device, or of the part of it that somebody has."""

    name: str
    bandwidth_bytes_s: float
    flops: float
    memory_bytes: float

    @classmethod
    def of(cls, spec: GpuSpec) -> Hardware:
        """Those of a GPU as its vendor states them."""
        return cls(spec.name, spec.memory_gb_s * 1e9, spec.fp16_tflops * 1e12, spec.memory_bytes)

    @classmethod
    def of_cpus(cls, name: str, count: int | None, bandwidth_gb_s: float | None) -> Hardware:
        """Those of ``count`` logical CPUs; what is not known limits nothing."""
        return cls(
            name,
            math.inf if bandwidth_gb_s is None else bandwidth_gb_s * 1e9,
            math.inf if count is None else count * _CPU_FLOPS,
            math.inf,
        )

    def part(self, *, compute: float = 1.0, bandwidth: float = 1.0) -> Hardware:
        """What fractions of its compute and of its memory bandwidth can do."""
        return replace(
            self, bandwidth_bytes_s=self.bandwidth_bytes_s * bandwidth, flops=self.flops * compute
        )

    def times(self, count: int) -> Hardware:
        """So many of them together."""
        return replace(
            self.part(compute=count, bandwidth=count), memory_bytes=self.memory_bytes * count
        )


@dataclass(frozen=True, slots=True)
class Served:
    """A model as it is served: bits of a weight and of a cache entry, tokens of one step."""

    model: VirtualModel
    weight_bits: float = 16
    cache_bits: float = 16
    tokens_a_step: int = 1
    """Tokens that one sequence can get in a step: more than one with speculative decoding."""

    @property
    def weight_bytes(self) -> float:
        """Memory of the weights."""
        return self.model.weight_bytes * self.weight_bits / 16

    @property
    def streamed_bytes(self) -> float:
        """What every step reads of the weights."""
        return self.model.streamed_bytes * self.weight_bits / 16

    @property
    def cache_bytes_per_token(self) -> float:
        """Keys and values of one token."""
        return self.model.kv_bytes_per_token * self.cache_bits / 16

    def prompt_flops(self, tokens: Any) -> Any:
        """FLOPs of computing prompts of so many tokens (a number or an array), without the head."""
        model = self.model
        pairs = model.attention_flops_per_pair * tokens * tokens / 2
        return (model.linear_flops_per_token * tokens + pairs) / self._speedup

    def token_flops(self, count: float, contexts: float) -> float:
        """FLOPs of ``count`` output tokens that look back on ``contexts`` tokens in all."""
        model = self.model
        linear = model.linear_flops_per_token + model.head_flops_per_sample
        return (linear * count + model.attention_flops_per_pair * contexts) / self._speedup

    @property
    def _speedup(self) -> float:
        """How many times the 16-bit peak small weights may reach: it doubles at 8 bits."""
        return 1.0 if self.weight_bits >= 16 else 2.0


def first_token_s(served: Served, hardware: Hardware, computed_tokens: Any) -> Any:
    """The least time to a first token: the prompt's FLOPs at peak, or the weights once."""
    streamed = served.streamed_bytes / hardware.bandwidth_bytes_s
    compute = served.prompt_flops(computed_tokens) / hardware.flops
    return (compute + streamed + abs(compute - streamed)) / 2  # the larger, of arrays too


def token_s(served: Served, hardware: Hardware, context: Any) -> Any:
    """The least time between tokens of one sequence alone: its weights and its cache once."""
    moved = served.streamed_bytes + served.cache_bytes_per_token * context
    return moved / hardware.bandwidth_bytes_s / served.tokens_a_step


def tokens_per_s(served: Served, hardware: Hardware, sequences: float, context: float) -> float:
    """The most output tokens that ``sequences`` decoding at once can get."""
    moved = served.streamed_bytes + sequences * served.cache_bytes_per_token * context
    return sequences * served.tokens_a_step * hardware.bandwidth_bytes_s / moved


def weights_text(served: Served, hardware: Hardware) -> str:
    """Why a step takes its time: ``15.01 GB of weights / 300 GB/s = 50.0 ms a step``."""
    if math.isinf(hardware.bandwidth_bytes_s):
        return f"{gigabytes(served.streamed_bytes)} of weights, of which no bandwidth is known"
    step = served.streamed_bytes / hardware.bandwidth_bytes_s
    return (
        f"{gigabytes(served.streamed_bytes)} of weights / "
        f"{hardware.bandwidth_bytes_s / 1e9:,.0f} GB/s = {format_seconds(step)} a step"
    )


def gigabytes(count: float) -> str:
    """Bytes as the vendors count them: 1e9."""
    return f"{count / 1e9:,.2f} GB"


def over(factor: float) -> str:
    """How far beyond its limit a figure lies."""
    return f"{format_number(factor)}x over" if factor >= 1.1 else f"{(factor - 1) * 100:.0f} % over"


def known_model(name: str) -> VirtualModel | None:
    """The model of the catalogue that a name or path means, if it means one.

    The parts of the catalogue's name must be parts of it in the same order: the last folder of
    ``meta-llama/Meta-Llama-3-8B-Instruct`` means ``llama-3-8b``, ``Llama-3.2-1B`` nothing.
    """
    last = PurePosixPath(name.rstrip("/")).name.lower().replace("llama", "llama-")
    parts: list[str] = []
    for part in re.split(r"[^a-z0-9.]+", last):
        parts += [part] if _SIZE.fullmatch(part) else part.split(".")
    for known, model in virtual_models().items():
        left = iter(parts)
        if all(part in left for part in known.split("-")):
            return model
    return None


def weight_bits(name: str, args: Any) -> float:
    """Bits of a weight, by what the engine was told and how the model is called; 16 where unsaid.

    What is quantised in an unknown way counts as 4 bits: too much may be believed then, and nothing
    is called impossible that is not.
    """
    told = str(args.get("quantization") or "").lower()
    text = f"{told} {name.lower()} {str(args.get('load_format') or '').lower()}"
    if _FOUR_BITS.search(text):
        return 4
    if _EIGHT_BITS.search(text):
        return 8
    return 4 if told else 16
