"""Who is asked about a server on a real GPU, and what then counts as verified."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.devices.nvml import GpuProcess, NvmlUnavailableError
from fairshare.errors import PartitionError
from fairshare.sharing.plan import ServerView, Slot
from fairshare.sharing.verifying import verify_cuda
from fairshare.spec.launcher import DeviceKind

GIB = 1024**3
GPU = Device(DeviceKind.CUDA, "GPU-1", "NVIDIA H200", 140 * GIB, index=0, sm_count=132)
SEEN = {"uuid": "1", "sm_count": 132, "total_bytes": 139 * GIB, "free_bytes": 138 * GIB}


class _Nvml:
    """Lists these processes, or does not answer."""

    def __init__(self, processes: list[GpuProcess] | None) -> None:
        self.processes = processes

    def compute_processes(self, uuid: str) -> list[GpuProcess]:
        assert uuid == GPU.id
        if self.processes is None:
            raise NvmlUnavailableError("it is away")
        return self.processes


def verified(slot: Slot, server: ServerView, *processes: GpuProcess) -> dict[str, Any]:
    """What verification says where NVML lists these processes."""
    nvml: Any = _Nvml(list(processes))
    return verify_cuda(GPU, Driver(nvml=nvml), slot, server)


def whole(**changes: Any) -> Slot:
    """A slot on the whole GPU."""
    return Slot(name="a", tenants=("a",), model="m", **changes)


def test_the_engines_report_decides(tmp_path: Path) -> None:
    """A report that agrees verifies the share, and what NVML lists stands beside it."""
    (tmp_path / "7.json").write_text(json.dumps(SEEN), "utf-8")
    seen = verified(whole(), ServerView([7], tmp_path), GpuProcess(7, GIB), GpuProcess(8, GIB))
    assert seen["verified"] is True
    assert (seen["gpu_pids"], seen["gpu_memory_bytes"]) == ([7], GIB)
    assert seen["engine"]["sm_count"] == 132


def test_a_report_that_differs_fails(tmp_path: Path) -> None:
    """An engine on a part of a GPU that it was to have as a whole is no baseline."""
    (tmp_path / "7.json").write_text(json.dumps({**SEEN, "sm_count": 66}), "utf-8")
    with pytest.raises(PartitionError, match="does not have its share") as caught:
        verified(whole(), ServerView([7], tmp_path))
    assert caught.value.evidence == ("SMs: planned 132 of 132, has 66",)


def test_a_server_above_its_cap_fails(tmp_path: Path) -> None:
    """Memory held beyond the cap proves that there is none, whatever the engine says."""
    capped = whole(memory_bytes=10 * GIB)
    with pytest.raises(PartitionError, match="the cap is not in force"):
        verified(capped, ServerView([7], tmp_path), GpuProcess(7, 12 * GIB))


def test_another_engine_needs_a_probe_and_its_environment() -> None:
    """Without a report, a probe counts for a process that has the probed environment."""
    here = os.getpid()
    bound = whole(env={"PATH": os.environ["PATH"]})
    seen = verified(bound, ServerView([here], probe=SEEN), GpuProcess(here, GIB))
    assert seen["verified"] is True
    assert seen["probe"] == SEEN
    with pytest.raises(PartitionError, match="nothing has looked"):
        verified(bound, ServerView([here]))
    with pytest.raises(PartitionError, match=rf"process {here} .* CUDA_VISIBLE_DEVICES"):
        verified(whole(env={"CUDA_VISIBLE_DEVICES": "none"}), ServerView([here], probe=SEEN))


def test_nvml_that_does_not_answer_is_recorded() -> None:
    """NVML is a second witness: its silence is told and decides nothing."""
    nvml: Any = _Nvml(None)
    view = ServerView([os.getpid()], probe=SEEN)
    seen = verify_cuda(GPU, Driver(nvml=nvml), whole(), view)
    assert seen["nvml"] == "does not answer: it is away"
