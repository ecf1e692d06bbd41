"""How a running server is looked at, by kind of device; see ``docs/verification.md``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.errors import PartitionError
from fairshare.sharing.affinity import verify_affinity
from fairshare.sharing.cuda_shares import differences
from fairshare.sharing.engine_reports import engine_reports, kv_differences, verify_cpu_engine
from fairshare.sharing.outside import check_environment, seen_by_nvml
from fairshare.sharing.plan import ServerView, Slot
from fairshare.sharing.reported import verify_reported
from fairshare.spec.launcher import DeviceKind

Verifier = Callable[[Slot, ServerView], Awaitable[dict[str, Any]]]


def verifier_for(device: Device, driver: Driver) -> Verifier:
    """How a share is verified on this kind of device.

    Each returns what was seen and ``by`` whom, or raises a PartitionError.
    """

    async def on_virtual(slot: Slot, server: ServerView) -> dict[str, Any]:
        return verify_reported(device, driver.env, slot, server.pids)

    async def on_cuda(slot: Slot, server: ServerView) -> dict[str, Any]:
        return verify_cuda(device, driver, slot, server)

    by_kind: dict[DeviceKind, Verifier] = {
        DeviceKind.CPU: verify_cpu,
        DeviceKind.VIRTUAL: on_virtual,
        DeviceKind.CUDA: on_cuda,
    }
    return by_kind[device.kind]


async def verify_cpu(slot: Slot, server: ServerView) -> dict[str, Any]:
    """Look at every thread's CPUs, and at what the engine says if it can.

    Raises:
        PartitionError: the server does not keep to its share, or that cannot be told.
    """
    seen = verify_affinity(slot, server.pids, caps_decide=server.reports is None)
    if server.reports is None:
        return {**seen, "by": "affinity of all threads"}
    report = verify_cpu_engine(slot, server)
    return {**seen, "by": "affinity of all threads and the engine's report", "engine": report}


def verify_cuda(device: Device, driver: Driver, slot: Slot, server: ServerView) -> dict[str, Any]:
    """Compare the engine's report, or what a probe in its environment saw, with the slot.

    Raises:
        PartitionError: the server does not have its share, or that cannot be told.
    """
    seen = seen_by_nvml(device, driver.nvml, slot, server.pids)
    if server.reports is not None:
        reports = engine_reports(slot, server)
        wrong = [line for each in reports for line in differences(device, slot, each)]
        wrong += [line for each in reports for line in kv_differences(server, each)]
        if wrong:
            raise PartitionError(
                f"the engine of server {slot.name} does not have its share of the GPU",
                evidence=wrong,
                hint="look for what overrides the slot's environment in the launcher",
            )
        return {"verified": True, "by": "the engine's report", **seen, "engine": reports[0]}
    if server.probe is None:
        raise PartitionError(
            f"nothing has looked at the share of server {slot.name} from inside",
            hint="engines that cannot report need a probe before their start",
        )
    check_environment(slot, server.pids, seen.get("gpu_pids") or ())
    by = "a probe before the start, and the environment of the server's processes"
    return {"verified": True, "by": by, **seen, "probe": dict(server.probe)}
