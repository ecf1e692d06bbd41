"""Cheap checks before a server is started."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from fairshare.devices.device import Device
from fairshare.errors import InfeasibleError, SpecError
from fairshare.serving.models import ModelFacts
from fairshare.serving.precheck import check_port, check_slot
from fairshare.sharing.plan import Slot
from fairshare.spec.launcher import DeviceKind, Launcher

KIB = 1024
CPU = Device(DeviceKind.CPU, "cpu", "cpu", 16 * KIB**3, cores=(0, 1))


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> ModelFacts:
    (tmp_path / "config.json").write_text("{}", "utf-8")
    return ModelFacts("m", str(tmp_path), "m", 512, 4096, KIB, None, ())


def _launcher(**changes: Any) -> Launcher:
    command = ["run", "--kv-cache-memory-bytes", "{kv_bytes}"]
    return Launcher.model_validate({"name": "x", "engine": "vllm", "command": command} | changes)


def _slot(fraction: float = 1.0) -> Slot:
    return Slot("a", ("a",), "m", memory_fraction=fraction)


def test_a_longer_context_than_the_models_is_refused(model: ModelFacts) -> None:
    """max_model_len beyond the model's own is refused with the largest that goes."""
    with pytest.raises(SpecError, match="max_model_len is 99999, but model m has 4096"):
        check_slot(_launcher(args={"max_model_len": 99999}), _slot(), model, CPU)


@pytest.mark.parametrize("length", ["auto", -1, "8k"])
def test_lengths_that_only_the_engine_understands_are_left_to_it(
    model: ModelFacts, length: object
) -> None:
    """Nothing is refused on the ground of a length that cannot be read here."""
    check_slot(_launcher(kv_bytes="1M", args={"max_model_len": length}), _slot(), model, CPU)


def test_a_kv_cache_below_one_sequence_is_refused(model: ModelFacts) -> None:
    """A KV cache that cannot hold one sequence of max_model_len is refused with both sizes."""
    with pytest.raises(SpecError, match=r"needs 4 MiB of KV cache, but server a gets 1 MiB"):
        check_slot(_launcher(kv_bytes="1M"), _slot(), model, CPU)
    check_slot(_launcher(kv_bytes="1M", args={"max_model_len": 1024}), _slot(), model, CPU)


def test_a_share_that_is_too_small_makes_the_cell_infeasible(model: ModelFacts) -> None:
    """Where the whole cache would do, only the cells with that share cannot be run."""
    with pytest.raises(InfeasibleError, match=r"25% of kv_bytes"):
        check_slot(_launcher(kv_bytes="8M"), _slot(0.25), model, CPU)
    check_slot(_launcher(kv_bytes="8M"), _slot(0.5), model, CPU)


def test_an_explicit_kv_size_is_what_counts(model: ModelFacts) -> None:
    """A KV size among the arguments replaces the launcher's, whatever the share."""
    launcher = _launcher(kv_bytes="64M", args={"kv_cache_memory_bytes": "1M"})
    with pytest.raises(SpecError, match="gets 1 MiB"):
        check_slot(launcher, _slot(), model, CPU)
    check_slot(_launcher(args={"kv_cache_memory_bytes": 4 * KIB * KIB}), _slot(0.1), model, CPU)


def test_smaller_values_and_more_gpus_need_less(model: ModelFacts) -> None:
    """An fp8 cache needs half, and tensor parallelism divides what each GPU holds."""
    check_slot(_launcher(kv_bytes="2M", args={"kv_cache_dtype": "fp8"}), _slot(), model, CPU)
    check_slot(_launcher(kv_bytes="2M", args={"tensor_parallel_size": 2}), _slot(), model, CPU)


def test_a_model_that_vanished_is_refused(model: ModelFacts, tmp_path: Path) -> None:
    """A model folder that is gone is told before the engine is started in vain."""
    (tmp_path / "config.json").unlink()
    with pytest.raises(SpecError, match="is not there"):
        check_slot(_launcher(), _slot(), model, CPU)


def test_a_port_in_use_is_refused() -> None:
    """A port that was asked for and is taken is an error that names it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(SpecError, match=f"port {port} of 127.0.0.1 is in use"):
            check_port(port)
    check_port(port)
    with pytest.raises(SpecError, match="not a port"):
        check_port(70000)
