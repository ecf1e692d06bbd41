"""Stand-in for ``nvidia-smi``: NVIDIA's formats and exit codes over a simulated GPU.

Imitates driver 580 as far as fairshare uses it. Standard library only and no argparse, so that a
call costs little more than the interpreter's start. What is imitated and what is inferred:
``docs/virtual-gpu.md``.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from fairshare.virtual import nvidia_smi_mig, nvidia_smi_query
from fairshare.virtual.nvidia_smi_text import IN_USE, NO_DRIVER, Exit, in_use_by_processes
from fairshare.virtual.processes import in_use
from fairshare.virtual.state import (
    STATE_ENV,
    State,
    changing_state,
    failures,
    mig_devices,
    read_state,
)

_COMPUTE_MODES = {
    "0": "DEFAULT", "DEFAULT": "DEFAULT",
    "2": "PROHIBITED", "PROHIBITED": "PROHIBITED",
    "3": "EXCLUSIVE_PROCESS", "EXCLUSIVE_PROCESS": "EXCLUSIVE_PROCESS",
}  # fmt: skip
_SHOWN_MODES = {
    "DEFAULT": "Default",
    "PROHIBITED": "Prohibited",
    "EXCLUSIVE_PROCESS": "Exclusive_Process",
}


def main(arguments: list[str]) -> int:
    """Do what the command line says; the exit status is nvidia-smi's."""
    directory = os.environ.get(STATE_ENV)
    if not directory or "driver_missing" in failures():
        print(NO_DRIVER)
        return Exit.NO_DRIVER
    return _run(Path(directory), arguments)


def _run(directory: Path, arguments: list[str]) -> int:
    if arguments[:1] == ["mig"]:
        return nvidia_smi_mig.run(directory, arguments[1:])
    options = _options(arguments)
    if options is None:
        return Exit.INVALID
    state = read_state(directory)
    if not selects(state, options.pop("-i", None)):
        print("No devices were found")
        return Exit.NOT_FOUND
    return _act(directory, state, options)


def _act(directory: Path, state: State, options: dict[str, str]) -> int:
    if "-mig" in options:
        return _set_mig_mode(directory, options["-mig"])
    if "-c" in options:
        return _set_compute_mode(directory, options["-c"])
    if "--gpu-reset" in options:
        return _reset(directory)
    if "-L" in options:
        return _list(state)
    return nvidia_smi_query.run(directory, state, options)


def selects(state: State, wanted: str | None) -> bool:
    """Whether ``-i``'s value means our GPU: index, UUID or bus id."""
    gpu = state["gpu"]
    return wanted is None or wanted in ("0", gpu["uuid"], gpu["bus_id"])


def _options(arguments: list[str]) -> dict[str, str] | None:
    """Options with their values, in either spelling; None after a complaint."""
    long = {"--id": "-i", "--multi-instance-gpu": "-mig", "--compute-mode": "-c"}
    long |= {"--list-gpus": "-L", "-r": "--gpu-reset"}
    flags = ("-L", "--gpu-reset")
    valued = ("-i", "-mig", "-c", "--format", *nvidia_smi_query.QUERIES)
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        name = long.get(name, name)
        if name in valued and not equals and rest:
            value = rest.pop(0)
        if name not in (*flags, *valued) or (name in valued and not value):
            print(f"Invalid combination of input arguments. Please run 'nvidia-smi -h' ({name}).")
            return None
        found[name] = value
    return found


def _list(state: State) -> int:
    gpu = state["gpu"]
    print(f"GPU 0: {gpu['name']} (UUID: {gpu['uuid']})")
    for device in mig_devices(state):
        name = f"MIG {device.profile['name']}"
        print(f"  {name:<15} Device {device.index:2}: (UUID: {device.uuid})")
    return Exit.OK


def _set_mig_mode(directory: Path, value: str) -> int:
    target = {"1": "Enabled", "ENABLED": "Enabled", "0": "Disabled", "DISABLED": "Disabled"}.get(
        value.upper()
    )
    if target is None:
        print(f"Invalid MIG Mode: {value}")
        return Exit.INVALID
    verb = target.lower().removesuffix("d")
    with changing_state(directory) as state:
        bus, mode = state["gpu"]["bus_id"], state["mig_mode"]
        if not state["gpu"]["mig_profiles"]:
            print(f"Unable to {verb} MIG Mode for GPU {bus}: Not Supported")
            return Exit.NOT_SUPPORTED
        if "mig_no_permission" in failures():
            print(f"Unable to {verb} MIG Mode for GPU {bus}: Insufficient Permissions")
            return Exit.NO_PERMISSION
        mode["pending"] = target
        held = in_use(directory) or bool(state["instances"])
        if mode["current"] != target and (held or "mig_pending" in failures()):
            print(f"Warning: MIG mode is in pending {verb} state for GPU {bus}:{IN_USE}")
            print(in_use_by_processes(bus))
        else:
            mode["current"] = target
            print(f"{target} MIG Mode for GPU {bus}")
    print("All done.")
    return Exit.OK  # also when the change is only pending: read the mode back


def _set_compute_mode(directory: Path, value: str) -> int:
    mode = _COMPUTE_MODES.get(value.upper())
    if mode is None:
        print(f"Invalid compute mode: {value}")
        return Exit.INVALID
    with changing_state(directory) as state:
        bus = state["gpu"]["bus_id"]
        if state["mig_mode"]["current"] == "Enabled":
            print(f"Setting compute mode to {mode} is not supported on a MIG-enabled device.")
            print(f"Unable to set the compute mode for GPU {bus}: Not Supported")
            print("Treating as warning and moving on.")
        else:
            state["compute_mode"] = _SHOWN_MODES[mode]
            print(f"Set compute mode to {mode} for GPU {bus}.")
    print("All done.")
    return Exit.OK


def _reset(directory: Path) -> int:
    with changing_state(directory) as state:
        bus = state["gpu"]["bus_id"]
        if in_use(directory):
            print(f"GPU {bus} is currently in use by another process.")
            return Exit.OTHER
        state["instances"] = []
        state["mig_mode"]["current"] = state["mig_mode"]["pending"]
    print(f"GPU {bus} was successfully reset.")
    print("All done.")
    return Exit.OK


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # quiet when the reader has enough
    sys.exit(main(sys.argv[1:]))
