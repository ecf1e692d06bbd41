"""What the simulated GPU remembers between commands: ``state.json`` in its folder.

The stand-in driver tools read and change it, servers read it. Standard library only, so that a
stand-in tool starts as fast as the real one.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT_VERSION = 1
STATE_ENV = "FAIRSHARE_VIRTUAL_GPU"
FAIL_ENV = "FAIRSHARE_VIRTUAL_FAIL"

State = dict[str, Any]


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


def read_state(directory: Path) -> State:
    """The state as last written; writes are atomic, so no lock is needed.

    Raises:
        OSError: there is no state in ``directory``.
        ValueError: it is not ours or of another version.
    """
    state: State = json.loads((directory / "state.json").read_text(encoding="utf-8"))
    if state.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{directory}/state.json has another format version")
    return state


def write_state(directory: Path, state: State) -> None:
    """Replace the state in one atomic step."""
    fresh = directory / f"state.json.{os.getpid()}"
    fresh.write_text(json.dumps(state, indent=1), encoding="utf-8")
    fresh.replace(directory / "state.json")


@contextmanager
def changing_state(directory: Path) -> Iterator[State]:
    """The state, ours alone until the block ends; written back whatever way it ends."""
    with (directory / "state.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = read_state(directory)
        try:
            yield state
        finally:
            write_state(directory, state)


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


def failures() -> set[str]:
    """The failure knobs that are switched on (``docs/virtual-gpu.md`` lists them)."""
    return {knob.strip() for knob in os.environ.get(FAIL_ENV, "").split(",") if knob.strip()}
