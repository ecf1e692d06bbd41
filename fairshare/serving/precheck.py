"""Cheap checks that save a server's start: seconds each, and an error that says what to change."""

from __future__ import annotations

from pathlib import Path

from fairshare.devices.device import Device
from fairshare.errors import InfeasibleError, SpecError
from fairshare.processes.ports import is_free
from fairshare.serving.memory import check_gpu_memory
from fairshare.serving.models import ModelFacts
from fairshare.serving.placeholders import share_of_kv_bytes, uses
from fairshare.sharing.plan import Slot
from fairshare.spec.launcher import DeviceKind, Engine, Launcher
from fairshare.units import format_bytes, parse_bytes


def check_slot(launcher: Launcher, slot: Slot, model: ModelFacts, device: Device) -> None:
    """Check a slot's server against its model, without the engine.

    Raises:
        SpecError: the model is gone, or ``max_model_len`` or ``kv_bytes`` do not fit it.
        InfeasibleError: only this slot's share of the memory is too small.
    """
    if launcher.engine is Engine.VIRTUAL:
        return
    if Path(model.path).is_absolute() and not (Path(model.path) / "config.json").is_file():
        raise SpecError(f"model {model.name} is not there: {model.path} has no config.json")
    stated = launcher.args.get("max_model_len")
    length = model.max_model_len if stated is None else _whole(launcher, "max_model_len")
    if length is None or length < 1:
        length = 1  # "auto", -1 or "8k": the engine has its own way with these
    if length > model.max_model_len:
        raise SpecError(
            f"args.max_model_len is {length}, but model {model.name} has {model.max_model_len}",
            hint=f"lower it to {model.max_model_len} or less",
        )
    _check_kv(launcher, slot, model, length)
    if launcher.engine is Engine.VLLM and device.kind is DeviceKind.CUDA:
        check_gpu_memory(launcher, slot, model, device, length)


def check_port(port: int) -> None:
    """Raise a SpecError if a port that was asked for is in use."""
    if not 1 <= port <= 65535:
        raise SpecError(f"args.port is {port}, which is not a port")
    if not is_free(port):
        raise SpecError(
            f"port {port} of 127.0.0.1 is in use",
            hint="stop what listens there, or leave out args.port: a free port is then chosen",
        )


def _check_kv(launcher: Launcher, slot: Slot, model: ModelFacts, length: int) -> None:
    explicit = launcher.args.get("kv_cache_memory_bytes")
    stated = explicit is not None and "{" not in str(explicit)
    try:
        given = parse_bytes(str(explicit)) if stated else share_of_kv_bytes(launcher, slot)
    except ValueError:
        return  # a way of writing it that only the engine understands
    if given is None or model.kv_bytes_per_token is None:
        return
    if not (stated or uses(launcher, "kv_bytes")):
        return
    parallel = (_whole(launcher, "tensor_parallel_size") or 1) * (
        _whole(launcher, "pipeline_parallel_size") or 1
    )
    halved = 2 if str(launcher.args.get("kv_cache_dtype") or "").startswith("fp8") else 1
    needed = length * model.kv_bytes_per_token // (parallel * halved)
    if given >= needed:
        return
    message = (
        f"one sequence of {length} tokens of {model.name} needs {format_bytes(needed)} of KV cache,"
        f" but server {slot.name} gets {format_bytes(given)}"
    )
    hint = "raise kv_bytes in the launcher, or lower args.max_model_len"
    if not stated and (launcher.kv_bytes or 0) >= needed:
        raise InfeasibleError(f"{message} ({slot.memory_fraction:.0%} of kv_bytes)", hint=hint)
    raise SpecError(message, hint=hint)


def _whole(launcher: Launcher, name: str) -> int | None:
    value = launcher.args.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
