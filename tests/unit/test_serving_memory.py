"""How much GPU memory servers are told to use, with the figures of real GPUs and models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fairshare.devices.device import Device
from fairshare.errors import InfeasibleError
from fairshare.serving.memory import (
    CONTEXT_BYTES,
    GpuMemory,
    cache_bytes,
    check_gpu_memory,
    gpu_memory,
    needs_of,
)
from fairshare.serving.models import ModelFacts
from fairshare.sharing.mps_control import PERCENTAGE_VARIABLE, PIPE_VARIABLE
from fairshare.sharing.plan import Slot
from fairshare.spec.launcher import DeviceKind, Launcher

GIB = 1024**3
H200 = Device(DeviceKind.CUDA, "GPU-1", "NVIDIA H200", 141 * GIB, index=0, sm_count=132)
A30 = Device(DeviceKind.CUDA, "GPU-2", "NVIDIA A30", 24 * GIB, index=0, sm_count=56)
# Qwen3-4B: 2560 wide, 9728 inside, 36 layers of 8 KV heads of 128.
QWEN = ModelFacts(
    name="qwen",
    path="/q",
    served_name="qwen",
    vocab_size=151_936,
    max_model_len=40_960,
    kv_bytes_per_token=147_456,
    weight_bytes=8_044_544_000,
    eos_token_ids=(),
    activation_bytes_per_token=(2 * 9728 + 4 * 2560) * 2,
)


def launcher(**changes: Any) -> Launcher:
    """A launcher of vLLM."""
    command = ["run", "--kv-cache-memory-bytes", "{kv_bytes}"]
    return Launcher.model_validate({"name": "x", "engine": "vllm", "command": command, **changes})


def slot(**changes: Any) -> Slot:
    """A slot of a GPU."""
    return Slot(name="a", tenants=("a",), model="qwen", **changes)


def capped(cap: int, device: Device = H200) -> Slot:
    """An MPS client with a memory limit."""
    fraction = cap / device.memory_bytes
    return slot(env={PIPE_VARIABLE: "/p"}, memory_bytes=cap, memory_fraction=fraction)


def on_mig(size: int, device: Device = H200) -> Slot:
    """A server on a MIG device."""
    env = {"CUDA_VISIBLE_DEVICES": "MIG-1"}
    return slot(env=env, memory_bytes=size, memory_fraction=size / device.memory_bytes)


def starts(memory: GpuMemory, free_bytes: float) -> bool:
    """VLLM's check at the start."""
    return memory.utilization * memory.total_bytes <= free_bytes


def test_a_cap_is_a_fraction_of_the_whole_gpu() -> None:
    """A cap of 20 GiB on 141 GiB gives at most 0.13, of which vLLM finds enough free."""
    memory = gpu_memory(capped(20 * GIB), H200)
    assert memory.total_bytes == 141 * GIB
    assert memory.utilization == 0.1276
    assert starts(memory, 20 * GIB - CONTEXT_BYTES)


def test_a_slice_is_a_fraction_of_itself() -> None:
    """Inside 1g.18gb (16 GiB) it is 0.9; in 1g.5gb the context takes more than a tenth."""
    assert gpu_memory(on_mig(16 * GIB), H200).utilization == 0.9
    small = gpu_memory(on_mig(int(4.75 * GIB)), H200)
    assert small.utilization == 0.8947
    assert starts(small, 4.75 * GIB - CONTEXT_BYTES)


def test_a_plan_knows_the_slices_that_are_not_made_yet() -> None:
    """Before there is a MIG device or a daemon, a slot is sized as it will be."""
    planned = slot(mig_profile="1g.18gb", memory_bytes=16 * GIB, memory_fraction=16 / 141)
    assert gpu_memory(planned, H200) == gpu_memory(on_mig(16 * GIB), H200)
    emulated = replace(planned, env={PERCENTAGE_VARIABLE: "12.12"})
    assert gpu_memory(emulated, H200) == gpu_memory(capped(16 * GIB), H200)


def test_alone_it_is_nine_tenths() -> None:
    """The whole GPU has no neighbours to leave anything to, and vLLM measures its own cache."""
    assert gpu_memory(slot(), H200).utilization == 0.9
    assert cache_bytes(launcher(), slot(), QWEN, H200) is None


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.7, 0.2, 0.1), (1 / 7,) * 7, (0.97, 0.03)])
@pytest.mark.parametrize("device", [H200, A30], ids=["h200", "a30"])
def test_each_server_in_turn_finds_its_memory_free(
    shares: tuple[float, ...], device: Device
) -> None:
    """Started one after another on a GPU without caps, every server passes vLLM's check."""
    free = float(device.memory_bytes)
    for share in shares:
        memory = gpu_memory(slot(memory_fraction=share), device)
        free -= CONTEXT_BYTES
        assert starts(memory, free), share
        free -= memory.utilization * memory.total_bytes
    assert free >= 0


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.7, 0.2, 0.1), (1 / 7,) * 7])
def test_every_capped_server_starts_and_stays_below_its_cap(shares: tuple[float, ...]) -> None:
    """What is asked for, with the context, is below each cap, equal or not."""
    for share in shares:
        cap = int(share * H200.memory_bytes)
        memory = gpu_memory(capped(cap), H200)
        asked = memory.utilization * memory.total_bytes
        assert asked + CONTEXT_BYTES <= cap
        assert asked > 0.85 * cap or cap < 6 * GIB


def test_the_cache_is_what_all_else_leaves_of_the_cap() -> None:
    """20 GiB: 18 usable, less 7.49 of weights, 0.45, 3.78 and 1 GiB, is cache in bytes."""
    needs = needs_of(launcher(), QWEN, H200)
    assert needs is not None
    gib = [round(n / GIB, 2) for n in (needs.weights, needs.activations, needs.logits)]
    assert gib == [7.49, 0.45, 3.77]
    fits = cache_bytes(launcher(), capped(20 * GIB), QWEN, H200)
    assert fits == int(0.9 * 20 * GIB) - needs.total
    assert 5.2 * GIB < fits < 5.4 * GIB


def test_a_smaller_step_leaves_more_for_the_cache() -> None:
    """The launcher's own limits and eager mode count instead of vLLM's defaults."""
    eager = launcher(args={"max_num_seqs": 64, "max_num_batched_tokens": 2048, "enforce_eager": 1})
    assert eager.args["enforce_eager"] == 1  # not the switch: a number says nothing
    small = launcher(args={"max_num_seqs": 64, "enforce_eager": True})
    plain = cache_bytes(launcher(), capped(20 * GIB), QWEN, H200)
    fits = cache_bytes(small, capped(20 * GIB), QWEN, H200)
    assert plain is not None
    assert fits is not None
    assert fits - plain == GIB + (1024 - 64) * QWEN.vocab_size * 26


def test_in_turn_the_cache_is_given_and_in_a_slice_measured() -> None:
    """Neighbours disturb vLLM's measurement where they allocate from the same memory."""
    assert cache_bytes(launcher(), slot(memory_fraction=0.5), QWEN, H200) is not None
    assert cache_bytes(launcher(), on_mig(32 * GIB), QWEN, H200) is None


def test_what_cannot_be_estimated_is_left_to_the_engine() -> None:
    """Unknown weights, adapters, other widths of weights and several workers give no figure."""
    cap = capped(20 * GIB)
    assert cache_bytes(launcher(args={"dtype": "float32"}), cap, QWEN, H200) is None
    assert cache_bytes(launcher(args={"tensor_parallel_size": 2}), cap, QWEN, H200) is None
    unknown = ModelFacts("m", "/m", "m", 512, 4096, None, None, ())
    assert cache_bytes(launcher(), cap, unknown, H200) is None
    check_gpu_memory(launcher(), cap, unknown, H200, 4096)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (capped(8 * GIB), r"may hold 8 GiB, .* 7.2 GiB .* 7.492 GiB of weights, .* CUDA graphs"),
        (capped(17 * GIB), r"5.625 GiB of KV cache for one sequence of 40960 tokens"),
        (slot(memory_fraction=1 / 14), "of activations"),
        (on_mig(8 * GIB), r"too little for 7.492 GiB of weights, and"),
        (slot(), None),
        (capped(30 * GIB), None),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_the_sum(share: Slot, words: str | None) -> None:
    """Before anything starts the arithmetic is told, in every mode; what fits is let through."""
    if words is None:
        check_gpu_memory(launcher(), share, QWEN, H200, 40_960)
        return
    with pytest.raises(InfeasibleError, match=words):
        check_gpu_memory(launcher(), share, QWEN, H200, 40_960)


def test_a_cache_of_ones_own_that_exceeds_the_share_is_refused() -> None:
    """A stated kv_bytes is believed, but not where weights and its part exceed the share."""
    stated = launcher(kv_bytes="100GiB")
    with pytest.raises(InfeasibleError, match=r"14.18 GiB of KV cache, its part"):
        check_gpu_memory(stated, capped(20 * GIB), QWEN, H200, 4096)
    check_gpu_memory(launcher(kv_bytes="60GiB"), capped(20 * GIB), QWEN, H200, 4096)


def test_a_fraction_of_ones_own_that_exceeds_the_share_is_refused() -> None:
    """0.9 of a GPU is not a 20 GiB cap: told before vLLM finds out, with the value to give."""
    greedy = launcher(args={"gpu_memory_utilization": 0.9})
    with pytest.raises(InfeasibleError, match=r"126.9 GiB of the 141 GiB") as caught:
        check_gpu_memory(greedy, capped(20 * GIB), QWEN, H200, 4096)
    assert "0.1276" in (caught.value.hint or "")
    check_gpu_memory(greedy, on_mig(32 * GIB), QWEN, H200, 4096)
