"""What the simulated GPU remembers between commands: ``state.json`` in its folder.

The stand-in driver tools read and change it, servers read it. Standard library only, so that a
stand-in tool starts as fast as the real one.
"""

from __future__ import annotations

import fcntl
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT_VERSION = 2
STATE_ENV = "FAIRSHARE_VIRTUAL_GPU"

State = dict[str, Any]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PARTS = {
    "gpu": dict, "boot_id": str, "mig_mode": dict, "compute_mode": str, "time_slice": str,
    "persistence_mode": str, "instances": list,
}  # fmt: skip
_GPU = {
    "name", "uuid", "bus_id", "driver_version", "compute_capability", "memory_mib", "fp16_tflops",
    "memory_gb_s", "sm_count", "mig_memory_slices", "mig_toggle_needs_reset", "mig_profiles",
}  # fmt: skip
_INSTANCE = {"gi", "profile", "profile_id", "ci_profile_id", "start", "size", "cis"}


class DamagedStateError(ValueError):
    """There is no usable simulated GPU in a folder; ``remedy`` is what to do about it."""

    def __init__(self, directory: Path, reason: str) -> None:
        self.problem = f"the simulated GPU in {directory} cannot be used: {reason}"
        self.remedy = f"throw it away: rm -r {shlex.quote(str(directory))}"
        super().__init__(f"{self.problem}; {self.remedy}")


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """The simulated device as the physics and the memory accounting see it."""

    name: str
    uuid: str
    peak_flops: float
    bandwidth_bytes_s: float
    sm_count: int
    memory_bytes: int
    mig_memory_slices: int


def gpu_facts(state: Mapping[str, Any]) -> GpuFacts:
    """The device that ``state`` describes."""
    gpu = state["gpu"]
    return GpuFacts(
        name=gpu["name"],
        uuid=gpu["uuid"],
        peak_flops=gpu["fp16_tflops"] * 1e12,
        bandwidth_bytes_s=gpu["memory_gb_s"] * 1e9,
        sm_count=gpu["sm_count"],
        memory_bytes=gpu["memory_mib"] * 1024**2,
        mig_memory_slices=gpu["mig_memory_slices"],
    )


def boot_id() -> str:
    """The kernel's random name of the present boot."""
    return _BOOT_ID.read_text(encoding="ascii").strip()


def read_state(directory: Path) -> State:
    """The state as last written, or what a reboot since then has left of it.

    Writes are atomic, so no lock is needed.

    Raises:
        OSError: there is no state in ``directory``.
        DamagedStateError: it is not ours, damaged, or of another version.
    """
    try:
        state = json.loads((directory / "state.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedStateError(directory, f"state.json is damaged ({error})") from None
    if not isinstance(state, dict) or "format_version" not in state:
        raise DamagedStateError(directory, "state.json is not fairshare's")
    if state["format_version"] != FORMAT_VERSION:
        raise DamagedStateError(directory, "another version of fairshare made it")
    if (place := _damage(state)) is not None:
        raise DamagedStateError(directory, f"state.json is damaged (at {place!r})")
    return state if state["boot_id"] == boot_id() else _rebooted(state)


def _damage(state: State) -> str | None:
    """Where something is missing, if anything is."""
    for name, kind in _PARTS.items():
        if not isinstance(state.get(name), kind):
            return name
    if missing := _GPU - state["gpu"].keys():
        return f"gpu.{min(missing)}"
    if not {"current", "pending"} <= state["mig_mode"].keys():
        return "mig_mode"
    whole = (isinstance(i, dict) and i.keys() >= _INSTANCE for i in state["instances"])
    return None if all(whole) else "instances"


def write_state(directory: Path, state: State) -> None:
    """Replace the state in one atomic step; the caller holds the lock."""
    fresh = directory / "state.json.new"
    fresh.write_text(json.dumps(state, indent=1), encoding="utf-8")
    fresh.replace(directory / "state.json")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep others from changing the state until the block ends."""
    with (directory / "state.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def changing_state(directory: Path) -> Iterator[State]:
    """The state, ours alone until the block ends; written back whatever way it ends."""
    with locked(directory):
        state = read_state(directory)
        try:
            yield state
        finally:
            write_state(directory, state)


def reset_gpu(state: State) -> None:
    """What a reset of the GPU does: no instances, defaults, and a pending mode takes effect."""
    state["mig_mode"]["current"] = state["mig_mode"]["pending"]
    state["compute_mode"], state["time_slice"] = "Default", "DEFAULT"
    state.pop("locked_clocks", None)
    state["instances"] = []


def _rebooted(state: State) -> State:
    """After a reboot Ampere keeps its MIG mode (it is stored on the card), newer GPUs do not."""
    if not state["gpu"]["mig_toggle_needs_reset"]:
        state["mig_mode"]["pending"] = "Disabled"
    reset_gpu(state)
    state["persistence_mode"] = "Enabled"
    state["boot_id"] = boot_id()
    return state


@dataclass(frozen=True, slots=True)
class MigDevice:
    """A compute instance with its GPU instance: what ``CUDA_VISIBLE_DEVICES`` can name."""

    index: int
    uuid: str
    gi: int
    ci: int
    profile: Mapping[str, Any]


def mig_devices(state: Mapping[str, Any]) -> list[MigDevice]:
    """The MIG devices in the driver's order: by memory placement."""
    profiles = {p["id"]: p for p in state["gpu"]["mig_profiles"]}
    found: list[MigDevice] = []
    for instance in sorted(state["instances"], key=lambda i: int(i["gi"])):
        for ci in instance["cis"]:
            profile = profiles[instance["profile_id"]]
            found.append(MigDevice(len(found), ci["uuid"], instance["gi"], ci["ci"], profile))
    return found
