"""The physics of one step, against hand arithmetic and published measurements."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from fairshare.errors import SpecError
from fairshare.virtual.models import model_names, virtual_model
from fairshare.virtual.physics import (
    PUBLISHED,
    Batch,
    Costs,
    Demand,
    drawable_bandwidth,
    work_s,
)


@dataclass(frozen=True)
class A100:
    """An A100-40's peaks."""

    peak_flops: float = 312e12
    bandwidth_bytes_s: float = 1555e9


def test_decode_step_is_bound_by_streaming_the_weights() -> None:
    """One decode step of Qwen3-4B on an A100-40 costs what the formulas say, term by term."""
    model = virtual_model("qwen3-4b")
    demand = Costs.of(A100(), model).demand(Batch(decoding=1, sampled=1, decode_context=2048))
    flops, moved = PUBLISHED.compute_efficiency * 312e12, PUBLISHED.memory_efficiency * 1555e9
    products = 2 * 3633315840 + 2 * 151936 * 2560
    assert demand.compute_s == pytest.approx(products / flops)
    assert demand.attention_compute_s == pytest.approx(4 * 36 * 32 * 128 * 2048 / flops)
    assert demand.memory_s == pytest.approx(8044544000 / moved)
    assert demand.attention_memory_s == pytest.approx(147456 * (2048 + 1) / moved)
    assert demand.latency_s == pytest.approx(36 * PUBLISHED.layer_latency_s)
    assert demand.host_s == 0


def test_decode_step_agrees_with_a_published_measurement() -> None:
    """ITL of one dedicated stream: NVIDIA Dynamo measured 8.58 ms (Qwen3-4B, A100-40, 2048/256)."""
    model = virtual_model("qwen3-4b")
    demand = Costs.of(A100(), model).demand(Batch(decoding=1, sampled=1, decode_context=2176))
    step_s = demand.latency_s + work_s(demand, 1.0, 1.0)
    assert step_s == pytest.approx(8.58e-3, rel=0.03)


def test_prefill_is_bound_by_compute() -> None:
    """A prompt of 2048 tokens takes its FLOPs over the reachable peak, and little more."""
    model = virtual_model("qwen3-4b")
    batch = Batch(prompt_tokens=2048, sampled=1, chunk_pairs=2048 * 1024)
    demand = Costs.of(A100(), model).demand(batch)
    assert demand.compute_s > 5 * demand.moving_s
    computing_s = demand.compute_s + demand.attention_compute_s
    assert work_s(demand, 1.0, 1.0) == pytest.approx(computing_s, rel=0.01)


def test_a_prompt_does_not_hide_that_others_read_their_cache() -> None:
    """Attention runs after the products: beside a prompt, decoding costs most of its traffic."""
    costs = Costs.of(A100(), virtual_model("qwen3-4b"))
    prompt = costs.demand(Batch(prompt_tokens=2048, sampled=1, chunk_pairs=2048 * 1024))
    mixed = costs.demand(
        Batch(2048, decoding=31, sampled=32, decode_context=31 * 2100, chunk_pairs=2048 * 1024)
    )
    more_s = work_s(mixed, 1.0, 1.0) - work_s(prompt, 1.0, 1.0)
    reading_s = mixed.attention_memory_s - prompt.attention_memory_s
    assert more_s > 0.5 * reading_s


def test_chunks_of_a_prompt_add_up_to_its_attention() -> None:
    """Splitting a prompt into chunks does not change how many pairs attention computes."""
    chunks = [(0, 512), (512, 512), (1024, 1024)]
    assert sum(c * (start + c / 2) for start, c in chunks) == 2048 * 2048 / 2


def test_work_is_a_smooth_maximum() -> None:
    """Combined time lies between the longer part and the sum, and nothing costs nothing."""
    both = work_s(Demand(2.0, 3.0, 0.0), 1.0, 1.0)
    assert 3.0 < both < 5.0
    assert work_s(Demand(0.0, 3.0, 0.0), 1.0, 1.0) == 3.0
    assert work_s(Demand(0.0, 0.0, 0.0), 1.0, 1.0) == 0.0
    assert work_s(Demand(2.0, 3.0, 0.0), 0.5, 0.5) == pytest.approx(2 * both)


def test_bandwidth_law_passes_through_its_points() -> None:
    """bw(1) is exactly 1, half the SMs draw 0.88 and a seventh 0.55 of the bandwidth."""
    assert drawable_bandwidth(1.0) == 1.0
    assert drawable_bandwidth(0.5) == pytest.approx(0.88, abs=0.005)
    assert drawable_bandwidth(1 / 7) == pytest.approx(0.55, abs=0.005)


@pytest.mark.parametrize(
    ("sm", "slowdown"), [(32, 1.33), (48, 1.21), (64, 1.09), (96, 1.06)], ids=str
)
def test_bandwidth_law_agrees_with_decode_on_part_of_an_h200(sm: int, slowdown: float) -> None:
    """Decode against SM count on an H200 (sglang-omni PR 1934), within 3 %.

    A quarter of the step does not depend on the SMs (fitted by the law's author).
    """
    predicted = 0.25 + 0.75 / drawable_bandwidth(sm / 132)
    assert predicted == pytest.approx(slowdown, rel=0.03)


def test_eager_mode_is_paced_by_the_host() -> None:
    """Without CUDA graphs 36 layers take at least the 39 ms that were published."""
    demand = Costs.of(A100(), virtual_model("qwen3-4b"), eager=True).demand(
        Batch(decoding=1, sampled=1)
    )
    assert demand.host_s == pytest.approx(39e-3)


@pytest.mark.parametrize("name", model_names())
def test_model_sizes_follow_from_their_shape(name: str) -> None:
    """KV bytes follow from layers and heads, and a step reads no more than there is."""
    model = virtual_model(name)
    assert model.kv_bytes_per_token == 2 * 2 * model.layers * model.kv_heads * model.head_dim
    assert 2 * model.linear_params < model.streamed_bytes <= model.weight_bytes
    assert model.head_flops_per_sample == 2 * model.vocab_size * model.hidden
    assert all(0 <= token < model.vocab_size for token in model.eos_token_ids)
    assert all(fact.source for fact in model.facts.values())


def test_unknown_model_names_its_neighbour() -> None:
    """A misspelt model is refused with the right name."""
    with pytest.raises(SpecError) as caught:
        virtual_model("qwen3-4B-instruct")
    assert "did you mean qwen3-4b" in (caught.value.hint or "")


def test_constants_carry_the_published_values() -> None:
    """The constants are those of the evaluation that their errors were measured with."""
    assert (PUBLISHED.compute_efficiency, PUBLISHED.memory_efficiency) == (0.532, 0.8359)
    assert (PUBLISHED.timeslice_tax, PUBLISHED.oversubscription) == (1.086, 1.19)
    assert (PUBLISHED.overlap_exponent, PUBLISHED.bandwidth_knee) == (2.2, 0.16)
