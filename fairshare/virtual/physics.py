"""How long one engine iteration takes on a GPU: pure functions of model, batch and device.

A step is described by three times on the *whole* device: compute ``C``, memory traffic ``M`` and
a latency ``L`` (launch gaps, small kernels) that no share changes. On a share it takes
``L + ((C/s)^k + (M/b)^k)^(1/k)`` with ``s`` the fraction of the SMs and ``b`` of the memory
bandwidth. The formulas and where each constant comes from: ``docs/virtual-gpu.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

from fairshare.devices.evidence import Evidence, Fact

if TYPE_CHECKING:  # the stand-in tools read the board without any site-packages
    from fairshare.virtual.models import VirtualModel


class Gpu(Protocol):
    """What the physics needs to know of a device."""

    @property
    def peak_flops(self) -> float:
        """Dense 16-bit FLOP/s at peak."""
        ...

    @property
    def bandwidth_bytes_s(self) -> float:
        """Peak memory bandwidth in bytes/s."""
        ...


def _known(value: float, evidence: Evidence, source: str) -> Any:
    return field(default=value, metadata={"fact": Fact(value, evidence, source)})


@dataclass(frozen=True, slots=True)
class Constants:
    """The fitted and borrowed numbers of the model, with the evidence for each.

    What is fitted was fitted on NVIDIA Dynamo's tables (A100-40, Qwen3-4B); a range is that of two
    fits, each on a part of the rows (benchmarks/virtual-gpu.md).
    """

    compute_efficiency: float = _known(
        0.532, Evidence.FITTED, "0.53 in both; A100 kernel profiles of microsoft/vidur: 0.66-0.73"
    )
    memory_efficiency: float = _known(0.8359, Evidence.FITTED, "0.83-0.84")
    layer_latency_s: float = _known(
        62e-6,
        Evidence.DERIVED,
        "kernel profiles of microsoft/vidur: what one-token GEMMs of an A100 layer take more",
    )
    overlap_exponent: float = _known(
        2.2, Evidence.DERIVED, "A100 GEMM times of microsoft/vidur; 1.0-2.2 fit as well"
    )
    bandwidth_knee: float = _known(
        0.16, Evidence.DERIVED, "H200 decode time against SM count, sglang-omni PR 1934: 0.14-0.19"
    )
    timeslice_tax: float = _known(
        1.086, Evidence.FITTED, "1.07-1.09; nebuly-ai/nos (YOLOS, A100-80): 1.11"
    )
    oversubscription: float = _known(
        1.19,
        Evidence.ASSUMED,
        "that of one vision model, nebuly-ai/nos (YOLOS, A100-80): 1.17-1.21",
    )
    eager_host_s_per_layer: float = _known(
        39e-3 / 36,
        Evidence.MEASURED,
        "39 ms for 36 layers on one host, Project-HAMi/gpu-sharing-benchmarks",
    )
    front_end_s: float = _known(
        0.03225, Evidence.FITTED, "32-33 ms; it is that site's: HTTP, tokenizer, scheduling"
    )


PUBLISHED = Constants()


def constant_facts() -> dict[str, Fact]:
    """How each of :data:`PUBLISHED` is known."""
    return {each.name: each.metadata["fact"] for each in fields(Constants)}


@dataclass(slots=True)  # not frozen: some are made for each request
class Batch:
    """What one iteration computes, in tokens.

    ``prompt_tokens`` are computed now by prefill (P), ``decoding`` sequences decode one token each
    (D), ``sampled`` sequences produce a token (S), ``decode_context`` is the KV length that the
    decoding sequences read, ``chunk_starts`` the sum of tokens that lie before each prompt chunk,
    and ``chunk_pairs`` the sum over chunks of ``c * (start + c / 2)``.
    """

    prompt_tokens: int = 0
    decoding: int = 0
    sampled: int = 0
    decode_context: int = 0
    chunk_starts: int = 0
    chunk_pairs: float = 0.0


@dataclass(slots=True)
class Demand:
    """One step's cost on the whole device, in seconds.

    Matrix products and attention are different kernels, which run one after the other: a product
    that is bound by compute hides its own traffic, but not the reading of the KV cache. ``host_s``
    is the least time a step takes because the host cannot launch it faster.
    """

    compute_s: float
    memory_s: float
    latency_s: float
    host_s: float = 0.0
    attention_compute_s: float = 0.0
    attention_memory_s: float = 0.0

    @property
    def moving_s(self) -> float:
        """All of its memory traffic."""
        return self.memory_s + self.attention_memory_s


@dataclass(frozen=True, slots=True)
class Costs:
    """What a model's tokens cost on a GPU, in seconds of the whole device for one of each."""

    token_s: float
    sample_s: float
    pair_s: float
    weights_s: float
    kv_s: float
    latency_s: float
    host_s: float

    @classmethod
    def of(
        cls, gpu: Gpu, model: VirtualModel, constants: Constants = PUBLISHED, *, eager: bool = False
    ) -> Costs:
        """The costs of ``model`` on ``gpu`` (section "One step" of ``docs/virtual-gpu.md``)."""
        flops = constants.compute_efficiency * gpu.peak_flops
        moved = constants.memory_efficiency * gpu.bandwidth_bytes_s
        return cls(
            token_s=model.linear_flops_per_token / flops,
            sample_s=model.head_flops_per_sample / flops,
            pair_s=model.attention_flops_per_pair / flops,
            weights_s=model.streamed_bytes / moved,
            kv_s=model.kv_bytes_per_token / moved,
            latency_s=model.layers * constants.layer_latency_s,
            host_s=model.layers * constants.eager_host_s_per_layer if eager else 0.0,
        )

    def demand(self, batch: Batch) -> Demand:
        """What one iteration of ``batch`` demands."""
        tokens = batch.prompt_tokens + batch.decoding
        pairs = batch.chunk_pairs + batch.decode_context
        read = batch.decode_context + batch.chunk_starts + tokens
        return Demand(
            self.token_s * tokens + self.sample_s * batch.sampled,
            self.weights_s,
            self.latency_s,
            self.host_s,
            self.pair_s * pairs,
            self.kv_s * read,
        )

    def within(self, sm_share: float, bandwidth_share: float) -> Costs:
        """The same in seconds of a partition that has these parts of the device."""
        return replace(
            self,
            token_s=self.token_s / sm_share,
            sample_s=self.sample_s / sm_share,
            pair_s=self.pair_s / sm_share,
            weights_s=self.weights_s / bandwidth_share,
            kv_s=self.kv_s / bandwidth_share,
        )


def work_s(
    demand: Demand, sm_share: float, bandwidth_share: float, constants: Constants = PUBLISHED
) -> float:
    """Seconds of the compute and memory part of a step on a share of the device."""
    k = constants.overlap_exponent
    return overlapped_s(
        demand.compute_s / sm_share, demand.memory_s / bandwidth_share, k
    ) + overlapped_s(
        demand.attention_compute_s / sm_share, demand.attention_memory_s / bandwidth_share, k
    )


def overlapped_s(compute_s: float, memory_s: float, exponent: float) -> float:
    """How long kernels take that compute and move data at once: a smooth maximum of both."""
    longer, shorter = (compute_s, memory_s) if compute_s > memory_s else (memory_s, compute_s)
    if shorter <= 0:
        return longer
    # Divided by the longer one so that the powers neither overflow nor vanish.
    return float(longer * (1 + (shorter / longer) ** exponent) ** (1 / exponent))


def drawable_bandwidth(sm_share: float, constants: Constants = PUBLISHED) -> float:
    """Fraction of the device's bandwidth that a fraction of its SMs can draw.

    ``bw(s) = (1 + a) s / (s + a)``: 1 at 1, 0.88 at a half, 0.55 at a seventh.
    """
    a = constants.bandwidth_knee
    return (1 + a) * sm_share / (sm_share + a)
