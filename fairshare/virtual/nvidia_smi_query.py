"""``nvidia-smi --query-gpu=...`` and ``--query-compute-apps=...`` of the stand-in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fairshare.virtual.nvidia_smi_text import Exit
from fairshare.virtual.processes import live_servers
from fairshare.virtual.state import State

QUERIES = ("--query-gpu", "--query-compute-apps")
_MIB = 1024**2
Row = Mapping[str, str]


def run(directory: Path, state: State, options: Mapping[str, str]) -> int:
    """Print what is asked for."""
    style = options.get("--format", "").split(",")
    if style[0] != "csv":
        print('"--format=csv" is required for queries.')
        return Exit.INVALID
    if "--query-gpu" in options:
        names, rows = options["--query-gpu"].split(","), [_gpu(directory, state)]
    elif "--query-compute-apps" in options:
        names = options["--query-compute-apps"].split(",")
        rows = [_app(state, report) for report in live_servers(directory)]
    else:
        print("Nothing is asked for.")
        return Exit.INVALID
    names = [name.strip() for name in names]
    known = rows[0] if rows else _app(state, {"pid": 0, "model": "", "used_bytes": 0})
    for name in names:
        if name not in known:
            print(f'Field "{name}" is not a valid field to query.\n')
            return Exit.INVALID
    if "noheader" not in style:
        print(", ".join(f"{name} [MiB]" if _is_size(known[name]) else name for name in names))
    shown: Callable[[str], str] = _without_unit if "nounits" in style else str
    for row in rows:
        print(", ".join(shown(row[name]) for name in names))
    return Exit.OK


def _gpu(directory: Path, state: State) -> Row:
    gpu = state["gpu"]
    capable = bool(gpu["mig_profiles"])
    used_mib = sum(report["used_bytes"] for report in live_servers(directory)) // _MIB
    unknown = "[N/A]"
    return {
        "index": "0",
        "count": "1",
        "uuid": gpu["uuid"],
        "gpu_uuid": gpu["uuid"],
        "name": gpu["name"],
        "gpu_name": gpu["name"],
        "pci.bus_id": gpu["bus_id"],
        "gpu_bus_id": gpu["bus_id"],
        "driver_version": gpu["driver_version"],
        "compute_cap": gpu["compute_capability"],
        "memory.total": f"{gpu['memory_mib']} MiB",
        "memory.used": f"{used_mib} MiB",
        "memory.free": f"{gpu['memory_mib'] - used_mib} MiB",
        "mig.mode.current": state["mig_mode"]["current"] if capable else unknown,
        "mig.mode.pending": state["mig_mode"]["pending"] if capable else unknown,
        "compute_mode": state["compute_mode"],
        "persistence_mode": state["persistence_mode"],
    }


def _app(state: State, report: Mapping[str, Any]) -> Row:
    gpu = state["gpu"]
    return {
        "pid": str(report["pid"]),
        "process_name": f"fairshare.virtual.server --model {report['model']}",
        "name": f"fairshare.virtual.server --model {report['model']}",
        "used_memory": f"{report['used_bytes'] // _MIB} MiB",
        "used_gpu_memory": f"{report['used_bytes'] // _MIB} MiB",
        "gpu_uuid": gpu["uuid"],
        "gpu_name": gpu["name"],
        "gpu_bus_id": gpu["bus_id"],
    }


def _is_size(value: str) -> bool:
    return value.endswith(" MiB")


def _without_unit(value: str) -> str:
    return value.removesuffix(" MiB")
