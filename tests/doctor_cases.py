"""A run to be, and what the doctor says of made-up facts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fairshare.devices.device import Device
from fairshare.devices.nvml import Gpu, GpuCondition, GpuProcess
from fairshare.doctor.finding import Finding
from fairshare.doctor.gpu import GpuFacts
from fairshare.doctor.intent import Intent
from fairshare.records import Mode
from fairshare.spec.launcher import DeviceKind, Launcher

GIB = 1024**3
UUID = "GPU-1"
PRODUCTS = {"h200": "NVIDIA H200", "a100": "NVIDIA A100-SXM4-40GB", "l4": "NVIDIA L4"}


def intent(kind: str = "cuda", *modes: str, product: str = "h200", **changes: Any) -> Intent:
    """A run of real engines (simulated ones on ``virtual``) in these modes (none: all)."""
    engine = "virtual" if kind == "virtual" else "vllm"
    values: dict[str, Any] = {
        "kind": DeviceKind(kind),
        "modes": frozenset(map(Mode, modes or Mode)),
        "launcher": Launcher(name="x", engine=engine, command=["serve"]),
        "folder": Path("results"),
        "device": Device(
            DeviceKind(kind),
            UUID,
            PRODUCTS[product],
            141 * GIB,
            index=0,
            mig_capable=product != "l4",
        ),
    }
    return Intent(**(values | changes))


def gpu_facts(product: str = "h200", *pids: int, **condition: Any) -> GpuFacts:
    """A GPU in order, with these compute processes and this condition."""
    gpu = Gpu(
        index=0,
        uuid=UUID,
        name=PRODUCTS[product],
        memory_bytes=141 * GIB,
        driver="580.105.08",
        sm_count=132,
        architecture="hopper",
        mig_capable=product != "l4",
        processes=tuple(GpuProcess(pid, 3 * GIB) for pid in pids),
    )
    usual: dict[str, Any] = {
        "compute_mode": "Default",
        "persistent": True,
        "mig": ("Disabled", "Disabled") if product != "l4" else None,
        "used_bytes": 0,
    }
    return GpuFacts(gpu=gpu, condition=GpuCondition(**(usual | condition)))


def told(findings: Iterable[Finding]) -> dict[str, str]:
    """The level of each finding by its name; each that is not ok says how to mend it."""
    found = list(findings)
    assert all(finding.fix for finding in found if finding.level != "ok")
    assert len({finding.name for finding in found}) == len(found)
    return {finding.name: finding.level.value for finding in found}
