"""``nvidia-smi compute-policy ...`` of the stand-in: the length of the time slices."""

from __future__ import annotations

from pathlib import Path

from fairshare.virtual.failing import fails
from fairshare.virtual.nvidia_smi_text import NOT_PERMITTED, Exit, selects
from fairshare.virtual.state import changing_state, read_state

_SLICES = ("DEFAULT", "SHORT", "MEDIUM", "LONG")
_HEAD = """\
+-------------------------------------+
| GPU compute policies:               |
| GPU     Name           Value        |
|=====================================|"""


def run(directory: Path, arguments: list[str]) -> int:
    """Do one ``compute-policy`` command."""
    options = _options(arguments)
    if options is None:
        print("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.")
        return Exit.INVALID
    state = read_state(directory)
    if not selects(state, options.get("-i")):
        print("No devices were found")
        return Exit.NOT_FOUND
    if {"--list", "--set-timeslice"} <= set(options):
        print("One, and only one, compute-policy command allowed at a time")
        return Exit.INVALID
    if "--set-timeslice" in options:
        return _set(directory, options["--set-timeslice"].upper())
    print(f"{_HEAD}\n|{0:>4}     {'timeslice':<15}{state['time_slice']:<13}|")
    print(_HEAD.partition("\n")[0])
    return Exit.OK


def _set(directory: Path, value: str) -> int:
    name = _SLICES[int(value)] if value in ("0", "1", "2", "3") else value
    if name not in _SLICES:
        print(f"Invalid timeslice value: {value}")
        return Exit.INVALID
    with changing_state(directory) as state:
        refused = None
        if fails("timeslice_no_permission"):
            refused = NOT_PERMITTED, Exit.NO_PERMISSION
        elif state["mig_mode"]["current"] == "Enabled":
            refused = "Not Supported", Exit.NOT_SUPPORTED
        if refused is not None:
            print(f"Failed to set timeslice policy with value {name} for GPU 0 : {refused[0]}")
            return refused[1]
        state["time_slice"] = name
    print(f"Successfully set timeslice policy with value {name} for GPU 0")
    return Exit.OK


def _options(arguments: list[str]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        name = {"-l": "--list", "--id": "-i"}.get(name, name)
        if name in ("-i", "--set-timeslice"):
            value = value if equals else (rest.pop(0) if rest else "")
        if name not in ("-i", "--list", "--set-timeslice") or (name != "--list" and not value):
            return None
        found[name] = value
    return found if set(found) - {"-i"} else None
