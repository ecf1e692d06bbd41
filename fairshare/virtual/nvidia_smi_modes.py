"""Changes of the whole GPU by the stand-in ``nvidia-smi``: MIG, compute, persistence, reset."""

from __future__ import annotations

from pathlib import Path

from fairshare.virtual.failing import fails
from fairshare.virtual.nvidia_smi_text import (
    IN_USE,
    NOT_PERMITTED,
    Exit,
    in_use_by_processes,
    reset_refused,
)
from fairshare.virtual.processes import in_use
from fairshare.virtual.state import State, changing_state, reset_gpu

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
_SWITCH = {"1": "Enabled", "ENABLED": "Enabled", "0": "Disabled", "DISABLED": "Disabled"}
# Knobs that leave a change of MIG mode pending, with what the driver then says.
_PENDING = {"mig_pending": "Not Supported", "mig_in_use": IN_USE, "mig_timeout": "Timeout"}


def set_mig_mode(directory: Path, value: str) -> int:
    """``-mig``: what it says is not what it did, so read the mode back."""
    target = _SWITCH.get(value.upper())
    if target is None:
        print(f"Invalid MIG Mode: {value}")
        return Exit.INVALID
    verb = target.lower().removesuffix("d")
    with changing_state(directory) as state:
        bus = state["gpu"]["bus_id"]
        if not state["gpu"]["mig_profiles"]:
            print(f"Unable to {verb} MIG Mode for GPU {bus}: Not Supported")
            return Exit.NOT_SUPPORTED
        if fails("mig_no_permission", verb):
            print(f"Unable to {verb} MIG Mode for GPU {bus}: {NOT_PERMITTED}")
            return Exit.NO_PERMISSION
        reason = _change_mig_mode(directory, state, target, verb)
        if reason is None:
            print(f"{target} MIG Mode for GPU {bus}")
        else:
            print(f"Warning: MIG mode is in pending {verb} state for GPU {bus}:{reason}")
            print(in_use_by_processes(bus) if reason == IN_USE else _reset_needed(bus))
    print("All done.")
    return Exit.OK  # also when the change is only pending


def _change_mig_mode(directory: Path, state: State, target: str, verb: str) -> str | None:
    """Change the mode; why the change is only pending, or None."""
    mode = state["mig_mode"]
    if fails("mode_lies", verb):
        return None
    mode["pending"] = target
    if mode["current"] == target:
        return None
    for knob, reason in _PENDING.items():
        if fails(knob, verb):
            return reason
    if in_use(directory) or state["instances"]:
        return IN_USE
    if state["gpu"]["mig_toggle_needs_reset"]:
        reset_gpu(state)
    mode["current"] = target
    return None


def _reset_needed(bus: str) -> str:
    return (
        f"Reboot the system or try nvidia-smi --gpu-reset to make MIG mode effective on GPU {bus}"
    )


def set_compute_mode(directory: Path, value: str) -> int:
    """``-c``: refused, but with status 0, on a MIG-enabled GPU."""
    mode = _COMPUTE_MODES.get(value.upper())
    if mode is None:
        print(f"Invalid compute mode: {value}")
        return Exit.INVALID
    with changing_state(directory) as state:
        bus = state["gpu"]["bus_id"]
        if fails("compute_mode_no_permission"):
            print(f"Unable to set the compute mode for GPU {bus}: {NOT_PERMITTED}")
            print("Terminating early due to previous errors.")
            return Exit.NO_PERMISSION
        if state["mig_mode"]["current"] == "Enabled":
            print(f"Setting compute mode to {mode} is not supported on a MIG-enabled device.")
            print(f"Unable to set the compute mode for GPU {bus}: Not Supported")
            print("Treating as warning and moving on.")
        else:
            state["compute_mode"] = _SHOWN_MODES[mode]
            print(f"Set compute mode to {mode} for GPU {bus}.")
    print("All done.")
    return Exit.OK


def set_persistence_mode(directory: Path, value: str) -> int:
    """``-pm``."""
    target = _SWITCH.get(value.upper())
    if target is None:
        print(f"Invalid persistence mode: {value}")
        return Exit.INVALID
    with changing_state(directory) as state:
        bus = state["gpu"]["bus_id"]
        if state["persistence_mode"] == target:
            print(f"Persistence mode is already {target} for GPU {bus}.")
        else:
            state["persistence_mode"] = target
            print(f"{target} persistence mode for GPU {bus}.")
    print("All done.")
    return Exit.OK


def lock_clocks(directory: Path, value: str) -> int:
    """``--lock-gpu-clocks``: one value in MHz or two."""
    low, _, high = value.partition(",")
    if not low.isdigit() or (high and not high.isdigit()):
        print(f"Invalid GPU clocks: {value}")
        return Exit.INVALID
    with changing_state(directory) as state:
        bus = state["gpu"]["bus_id"]
        if fails("clocks_no_permission"):
            print(f"The current user does not have permission to change clocks for GPU {bus}.")
            print("Terminating early due to previous errors.")
            return Exit.NO_PERMISSION
        state["locked_clocks"] = [int(low), int(high or low)]
        print(f'GPU clocks set to "(gpuClkMin {low}, gpuClkMax {high or low})" for GPU {bus}')
    print("All done.")
    return Exit.OK


def reset_clocks(directory: Path) -> int:
    """``--reset-gpu-clocks``: also where they were not locked."""
    with changing_state(directory) as state:
        state.pop("locked_clocks", None)
        print(f"All GPU clocks reset for GPU {state['gpu']['bus_id']}")
    print("All done.")
    return Exit.OK


def reset(directory: Path) -> int:
    """``--gpu-reset``: nobody may use the GPU; a pending MIG mode takes effect."""
    with changing_state(directory) as state:
        bus = state["gpu"]["bus_id"]
        if fails("mig_pending", "enable", "disable"):
            print(f"Resetting GPU {bus} is not supported.")
            return Exit.NOT_SUPPORTED
        if in_use(directory) or fails("mig_in_use", "enable", "disable"):
            print(reset_refused(bus))
            return Exit.OTHER
        reset_gpu(state)
    print(f"GPU {bus} was successfully reset.")
    print("All done.")
    return Exit.OK
