"""``nvidia-smi --query-gpu=...``, ``--query-compute-apps=...`` and ``-q -x`` of the stand-in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairshare.virtual.nvidia_smi_text import Exit, utilisation_percent
from fairshare.virtual.processes import live_servers, mps_servers
from fairshare.virtual.state import State

QUERIES = ("--query-gpu", "--query-compute-apps")
_MIB = 1024**2
_UNKNOWN = "[N/A]"
_UNITS = {
    "memory.total": "MiB", "memory.used": "MiB", "memory.free": "MiB", "memory.reserved": "MiB",
    "used_gpu_memory": "MiB", "utilization.gpu": "%", "utilization.memory": "%",
    "power.draw": "W", "power.limit": "W", "clocks.current.sm": "MHz",
    "clocks.current.memory": "MHz",
}  # fmt: skip
# Names that nvidia-smi takes for others, which it then prints.
_ALIASES = {
    "gpu_uuid": "uuid", "gpu_name": "name", "gpu_bus_id": "pci.bus_id",
    "clocks.sm": "clocks.current.sm", "clocks.mem": "clocks.current.memory",
}  # fmt: skip
_APP_ALIASES = {"name": "process_name", "used_memory": "used_gpu_memory"}
# What a simulated GPU has no figure for.
_ABSENT = (
    "serial", "power.draw", "power.limit", "temperature.gpu", "temperature.memory",
    "clocks.current.sm", "clocks.current.memory", "utilization.memory", "fan.speed",
    "ecc.mode.current", "ecc.mode.pending",
)  # fmt: skip
Row = Mapping[str, str]


def run(directory: Path, state: State, options: Mapping[str, str]) -> int:
    """Print what is asked for."""
    if {"-q", "-x"} <= set(options):
        from fairshare.virtual import nvidia_smi_xml  # noqa: PLC0415  (seldom needed)

        print(nvidia_smi_xml.document(directory, state))
        return Exit.OK
    style = options.get("--format", "").split(",")
    if not {"-q", "-x"}.isdisjoint(options) or not set(QUERIES) & set(options):
        print("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.")
        return Exit.INVALID
    if style[0] != "csv":
        print('"--format=csv" is required for queries.')
        return Exit.INVALID
    apps = "--query-gpu" not in options
    names = [name.strip() for name in options[QUERIES[apps]].split(",")]
    aliases = _APP_ALIASES if apps else _ALIASES
    return _print([aliases.get(name, name) for name in names], style, directory, state, apps=apps)


def _print(names: list[str], style: list[str], directory: Path, state: State, *, apps: bool) -> int:
    if apps:
        rows = [_app(state, report) for report in live_servers(directory)]
        rows += [_mps_server(state, pid) for pid in mps_servers(directory)]
        known = rows[0] if rows else _app(state, {"pid": 0, "model": "", "used_bytes": 0})
    else:
        known = _gpu(directory, state)
        rows = [known]
        if "utilization.gpu" in names:
            rows[0] = {**known, "utilization.gpu": utilisation_percent(directory, state)}
    for name in names:
        if name not in known:
            print(f'Field "{name}" is not a valid field to query.\n')
            return Exit.INVALID
    if "noheader" not in style:
        print(", ".join(f"{name} [{_UNITS[name]}]" if name in _UNITS else name for name in names))
    for row in rows:
        print(", ".join(_with_unit(name, row[name], style) for name in names))
    return Exit.OK


def _with_unit(name: str, value: str, style: list[str]) -> str:
    if value == _UNKNOWN or name not in _UNITS or "nounits" in style:
        return value
    return f"{value} {_UNITS[name]}"


def _gpu(directory: Path, state: State) -> Row:
    gpu = state["gpu"]
    capable = bool(gpu["mig_profiles"])
    used_mib = sum(report["used_bytes"] for report in live_servers(directory)) // _MIB
    return {
        **dict.fromkeys(_ABSENT, _UNKNOWN),
        "index": "0",
        "count": "1",
        "uuid": gpu["uuid"],
        "name": gpu["name"],
        "pci.bus_id": gpu["bus_id"],
        "driver_version": gpu["driver_version"],
        "compute_cap": gpu["compute_capability"],
        "memory.total": str(gpu["memory_mib"]),
        "memory.reserved": "0",
        "memory.used": str(used_mib),
        "memory.free": str(gpu["memory_mib"] - used_mib),
        "utilization.gpu": _UNKNOWN,
        "mig.mode.current": state["mig_mode"]["current"] if capable else _UNKNOWN,
        "mig.mode.pending": state["mig_mode"]["pending"] if capable else _UNKNOWN,
        "compute_mode": state["compute_mode"],
        "persistence_mode": state["persistence_mode"],
        "pstate": "P0",
        "display_active": "Disabled",
        "display_mode": "Disabled",
    }


def _app(state: State, report: Mapping[str, Any]) -> Row:
    gpu = state["gpu"]
    return {
        "pid": str(report["pid"]),
        "process_name": process_name(report),
        "used_gpu_memory": str(report["used_bytes"] // _MIB),
        "gpu_uuid": gpu["uuid"],
        "gpu_name": gpu["name"],
        "gpu_bus_id": gpu["bus_id"],
    }


def _mps_server(state: State, pid: int) -> Row:
    row = _app(state, {"pid": pid, "model": "", "used_bytes": 0})
    return {**row, "process_name": "nvidia-cuda-mps-server", "used_gpu_memory": _UNKNOWN}


def process_name(report: Mapping[str, Any]) -> str:
    """What the driver calls a server."""
    return f"fairshare.virtual.server --model {report['model']}"
