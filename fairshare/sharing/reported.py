"""Whether a virtual server has its share: it writes what the simulated GPU gave it into a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairshare.devices.constants import MIB
from fairshare.devices.device import Device
from fairshare.errors import PartitionError
from fairshare.sharing.plan import Slot
from fairshare.sharing.slots import binding_of

_COMPUTE_TOLERANCE = 0.005  # percentages are written with two digits
_MEMORY_TOLERANCE_BYTES = MIB  # limits are written in whole MiB


def verify_reported(
    device: Device, driver_env: Mapping[str, str], slot: Slot, pids: Sequence[int]
) -> dict[str, Any]:
    """Compare the simulated GPU's report of a server with the server's slot.

    Raises:
        PartitionError: there is no report, or it differs from the plan.
    """
    folder = Path(driver_env["FAIRSHARE_VIRTUAL_GPU"]) / "servers"
    report = next((found for pid in pids if (found := _read(folder / f"{pid}.json"))), None)
    if report is None:
        raise PartitionError(
            f"the simulated GPU knows no process of the server {slot.name}",
            hint="the server did not start on the simulated GPU; look at its log",
        )
    planned = {
        "compute_fraction": slot.compute_fraction,
        "memory_bytes": slot.memory_bytes or device.memory_bytes,
    }
    tolerance = {
        "compute_fraction": _COMPUTE_TOLERANCE,
        "memory_bytes": _MEMORY_TOLERANCE_BYTES,
    }
    wrong = [
        f"{key}: planned {planned[key]:g}, has {report.get(key)}"
        for key in planned
        if abs(float(report.get(key, -1)) - planned[key]) > tolerance[key]
    ]
    if report.get("sharing") != (binding := binding_of(slot)):
        wrong.append(f"sharing: planned {binding}, has {report.get('sharing')}")
    if wrong:
        raise PartitionError(
            f"the server {slot.name} does not have its share of the simulated GPU", evidence=wrong
        )
    return {"verified": True, "by": "the simulated GPU's own account", **report}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        report: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return report
