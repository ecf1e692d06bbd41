"""Stand-in for ``nvidia-smi``: NVIDIA's formats and exit codes over a simulated GPU.

Imitates the drivers since R450 as far as fairshare uses them. Standard library only and no
argparse, so that a call costs little more than the interpreter's start. What is imitated and what
is inferred: ``docs/virtual-gpu.md``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from fairshare.virtual import nvidia_smi_mig, nvidia_smi_modes, nvidia_smi_policy, nvidia_smi_query
from fairshare.virtual.failing import fails
from fairshare.virtual.nvidia_smi_text import NO_DRIVER, Exit, driver_branch, selects
from fairshare.virtual.state import STATE_ENV, State, mig_devices, read_state

_SUBCOMMANDS: Mapping[str, Callable[[Path, list[str]], int]] = {
    "mig": nvidia_smi_mig.run,
    "compute-policy": nvidia_smi_policy.run,
}
_CHANGES: Mapping[str, Callable[[Path, str], int]] = {
    "-mig": nvidia_smi_modes.set_mig_mode,
    "-c": nvidia_smi_modes.set_compute_mode,
    "-pm": nvidia_smi_modes.set_persistence_mode,
    "--lock-gpu-clocks": nvidia_smi_modes.lock_clocks,
    "--reset-gpu-clocks": lambda directory, _: nvidia_smi_modes.reset_clocks(directory),
    "--gpu-reset": lambda directory, _: nvidia_smi_modes.reset(directory),
}
_SHORT = {
    "--id": "-i", "--multi-instance-gpu": "-mig", "--compute-mode": "-c",
    "--persistence-mode": "-pm", "--list-gpus": "-L", "-r": "--gpu-reset", "--query": "-q",
    "--xml-format": "-x", "-lgc": "--lock-gpu-clocks", "-rgc": "--reset-gpu-clocks",
}  # fmt: skip
_FLAGS = ("-L", "--gpu-reset", "--reset-gpu-clocks", "-q", "-x")
_SLOW_S = 3.0  # a real driver takes seconds to change the MIG mode
_VALUED = ("-i", "-mig", "-c", "-pm", "--lock-gpu-clocks", "--format", *nvidia_smi_query.QUERIES)


def main(arguments: list[str]) -> int:
    """Do what the command line says; the exit status is nvidia-smi's."""
    directory = os.environ.get(STATE_ENV)
    if fails("smi_slow", *arguments):
        time.sleep(_SLOW_S)
    if fails("smi_hang", *arguments):
        _hang()
    if not directory or fails("driver_missing"):
        print(NO_DRIVER)
        return Exit.NO_DRIVER
    try:
        status = _run(Path(directory), arguments)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"simulated nvidia-smi: {error}\n")
        return Exit.OTHER
    if fails("smi_hang_after", *arguments):
        _hang()
    return status


def _hang() -> None:
    """Do not answer, for as long as nobody kills us."""
    sys.stdout.flush()
    while True:
        signal.pause()


def _run(directory: Path, arguments: list[str]) -> int:
    if arguments and arguments[0] in _SUBCOMMANDS:
        return _SUBCOMMANDS[arguments[0]](directory, arguments[1:])
    options = _options(arguments)
    if options is None:
        return Exit.INVALID
    state = read_state(directory)
    if not selects(state, options.pop("-i", None)):
        print("No devices were found")
        return Exit.NOT_FOUND
    for name, change in _CHANGES.items():
        if name in options:
            return change(directory, options[name])
    return _show(directory, state, options)


def _show(directory: Path, state: State, options: Mapping[str, str]) -> int:
    if "-L" in options:
        return _list(state)
    if not options:
        from fairshare.virtual import nvidia_smi_summary  # noqa: PLC0415  (seldom needed)

        print(nvidia_smi_summary.summary(directory, state))
        return Exit.OK
    return nvidia_smi_query.run(directory, state, options)


def _options(arguments: list[str]) -> dict[str, str] | None:
    """Options with their values, in either spelling; None after a complaint."""
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        name = _SHORT.get(name, name)
        if name in _VALUED and not equals and rest:
            value = rest.pop(0)
        if name not in (*_FLAGS, *_VALUED) or (name in _VALUED and not value):
            print(f"Invalid combination of input arguments. Please run 'nvidia-smi -h' ({name}).")
            return None
        found[name] = value
    return found


def _list(state: State) -> int:
    gpu = state["gpu"]
    print(f"GPU 0: {gpu['name']} (UUID: {gpu['uuid']})")
    for device in mig_devices(state):
        name = f"MIG {device.profile['name']}"
        columns = (
            f"{name:<15} Device {device.index:2}"
            if driver_branch(state) >= 510
            else f"{name} Device {device.index}"
        )
        print(f"  {columns}: (UUID: {device.uuid})")
    return Exit.OK


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # quiet when the reader has enough
    sys.exit(main(sys.argv[1:]))
