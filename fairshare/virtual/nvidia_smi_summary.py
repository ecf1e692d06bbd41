"""Plain ``nvidia-smi``: the table that people look at, as drivers since R550 print it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fairshare.virtual.nvidia_smi_query import process_name
from fairshare.virtual.nvidia_smi_text import driver_branch, utilisation_percent
from fairshare.virtual.processes import live_servers, mps_servers
from fairshare.virtual.state import State, mig_devices

_MIB = 1024**2
# Driver branch -> CUDA version; the first that is not too new.
_CUDA = {615: "13.4", 610: "13.3", 595: "13.2", 590: "13.1", 580: "13.0", 575: "12.9", 570: "12.8"}
_GPU_HEAD = """\
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|"""
_GPU_RULE = (
    "+-----------------------------------------+------------------------+----------------------+"
)
_RULE = f"+{'-' * 89}+"
_MIG_RULE = (
    "+------------------+----------------------------------+-----------+-----------------------+"
)
_MIG_HEAD = """\
| MIG devices:                                                                            |
{rule}
| GPU  GI  CI  MIG |{memory:>33} |        Vol|        Shared         |
|      ID  ID  Dev |{bar1:>33} | SM     Unc| CE ENC  DEC  OFA  JPG |
|                  |                                  |        ECC|                       |
|==================+==================================+===========+=======================|"""
_PROCESSES_HEAD = """\
| Processes:                                                                              |
|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|"""
_COMPUTE_MODES = {"Exclusive_Process": "E. Process"}

Reports = list[dict[str, Any]]


def summary(directory: Path, state: State) -> str:
    """The whole answer."""
    reports = live_servers(directory)
    parts = [time.strftime("%a %b %e %H:%M:%S %Y") + " " * 7, _RULE, _versions(state)]
    parts.append(_GPU_RULE if driver_branch(state) >= 575 else f"|{_GPU_RULE[1:]}")
    parts += [_GPU_HEAD, _gpu(directory, state, reports), _GPU_RULE, ""]
    if state["mig_mode"]["current"] == "Enabled":
        parts += [_RULE, *_mig_devices(state, reports), ""]
    return "\n".join(
        [*parts, _RULE, _PROCESSES_HEAD, *_processes(directory, state, reports), _RULE]
    )


def _versions(state: State) -> str:
    version, branch = state["gpu"]["driver_version"], driver_branch(state)
    cuda = next((number for since, number in _CUDA.items() if branch >= since), "12.4")
    if branch >= 610:
        return f"| NVIDIA-SMI {version:<22} KMD Version: {version:<13} CUDA UMD Version: {cuda:<9}|"
    return f"| NVIDIA-SMI {version:<22} Driver Version: {version:<14} CUDA Version: {cuda:<9}|"


def _gpu(directory: Path, state: State, reports: Reports) -> str:
    gpu, mode = state["gpu"], state["mig_mode"]["current"]
    name = gpu["name"] if len(gpu["name"]) <= 27 else f"{gpu['name'][:24]}..."
    persistence = "On" if state["persistence_mode"] == "Enabled" else "Off"
    used_mib = sum(report["used_bytes"] for report in reports) // _MIB
    busy = utilisation_percent(directory, state)
    busy = "N/A" if busy == "[N/A]" else f"{busy}%"
    compute = _COMPUTE_MODES.get(state["compute_mode"], state["compute_mode"])
    mig = mode if gpu["mig_profiles"] else "N/A"
    return (
        f"|{0:>4}  {name:<27}    {persistence:<4}|{gpu['bus_id']:>19} Off |"
        f"{'On' if mode == 'Enabled' else '0':>21} |\n"
        f"| N/A   N/A    P0            N/A  /  N/A  |{used_mib:>8}MiB /{gpu['memory_mib']:>7}MiB |"
        f"{busy:>8}{compute:>13} |\n"
        f"|{'':41}|{'':24}|{mig:>21} |"
    )


def _mig_devices(state: State, reports: Reports) -> list[str]:
    new = driver_branch(state) >= 575
    shared = "Shared " if new else ""
    rows = [
        _MIG_HEAD.format(rule=_MIG_RULE, memory=f"{shared}Memory-Usage", bar1=f"{shared}BAR1-Usage")
    ]
    whole_bar1 = 1 << (int(state["gpu"]["memory_mib"]) - 1).bit_length()
    for device in mig_devices(state):
        profile = device.profile
        copy, decode, encode, jpeg, ofa = profile["engines"]
        used = sum(r["used_bytes"] for r in reports if r["device_uuid"] == device.uuid) // _MIB
        bar1 = whole_bar1 * profile["memory_slices"] // state["gpu"]["mig_memory_slices"] - 1
        bar1_usage = f"{0:>16}MiB /{bar1:>6}MiB    " if new else f"{0:>18}MiB /{bar1:>6}MiB  "
        rows += [
            f"|{0:>3}{device.gi:>5}{device.ci:>4}{device.index:>4}  |{used:>16}MiB /"
            f"{round(profile['memory_gib'] * 1024):>6}MiB    | {profile['sm']:<8}0 |"
            f"{copy:>3}{encode:>4}{decode:>5}{ofa:>5}{jpeg:>5} |",
            f"|{'':18}|{bar1_usage}|{'':11}|{'':23}|",
            _MIG_RULE,
        ]
    if len(rows) == 1:
        rows += [f"|  {'No MIG devices found':<87}|", _RULE]
    return rows


def _processes(directory: Path, state: State, reports: Reports) -> list[str]:
    devices = {device.uuid: device for device in mig_devices(state)}
    rows = []
    for report in reports:
        device = devices.get(report["device_uuid"])
        where = f"{'N/A':>6}{'N/A':>5}" if device is None else f"{device.gi:>5}{device.ci:>5} "
        kind = "M+C" if report.get("sharing") == "mps" else "C"
        rows.append(
            f"|{0:>5}{where}{report['pid']:>16}{kind:>7}   {process_name(report)[:37]:<38}"
            f"{report['used_bytes'] // _MIB:>5}MiB |"
        )
    for pid in mps_servers(directory):
        rows.append(
            f"|{0:>5}{'N/A':>6}{'N/A':>5}{pid:>16}{'C':>7}   {'nvidia-cuda-mps-server':<38}"
            f"{'N/A':>8} |"
        )
    return rows or [f"|  {'No running processes found':<87}|"]
