"""``nvidia-smi mig ...`` of the stand-in: list and destroy instances."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fairshare.virtual import nvidia_smi_create as create
from fairshare.virtual import nvidia_smi_tables as tables
from fairshare.virtual.failing import fails
from fairshare.virtual.nvidia_smi_text import CODES, IN_USE, NOT_PERMITTED, Exit, selects
from fairshare.virtual.processes import live_servers
from fairshare.virtual.state import State, changing_state, read_state

Ids = set[int] | None  # None: all of them

_LISTS: Mapping[str, tuple[str, Callable[[State, Ids], str | None]]] = {
    "-lgip": ("GPU instance profiles", lambda state, _: tables.profiles(state)),
    "-lgipp": ("GPU instance placements", lambda state, _: tables.placements(state)),
    "-lgi": ("GPU instances", tables.gpu_instances),
    "-lcip": ("compute instance profiles", tables.compute_profiles),
    "-lci": ("compute instances", tables.compute_instances),
}
_WITHOUT_MIG = ("-lgip", "-lgipp")
_LONG = {
    "--id": "-i", "--gpu-instance-id": "-gi", "--compute-instance-id": "-ci",
    "--list-gpu-instance-profiles": "-lgip", "--list-gpu-instances": "-lgi",
    "--list-gpu-instance-possible-placements": "-lgipp",
    "--list-compute-instance-profiles": "-lcip", "--list-compute-instances": "-lci",
    "--create-gpu-instance": "-cgi", "--create-compute-instance": "-cci",
    "--default-compute-instance": "-C",
    "--destroy-gpu-instance": "-dgi", "--destroy-compute-instance": "-dci",
}  # fmt: skip
_FLAGS = ("-C", *_LISTS, "-dgi", "-dci")
_VALUED = ("-i", "-gi", "-ci", "-cgi")


def run(directory: Path, arguments: list[str]) -> int:
    """Do one ``mig`` command."""
    options = _options(arguments)
    if options is None:
        print("Invalid combination of input arguments. Please run 'nvidia-smi mig -h' for help.")
        return Exit.INVALID
    state = read_state(directory)
    if not selects(state, options.get("-i")):
        print("No devices were found")
        return Exit.NOT_FOUND
    if not state["gpu"]["mig_profiles"]:
        print("No MIG-supported devices found.")
        return Exit.NOT_FOUND
    listing = next((name for name in _LISTS if name in options), None)
    if state["mig_mode"]["current"] != "Enabled" and listing not in _WITHOUT_MIG:
        print("No MIG-enabled devices found.")
        return Exit.NOT_FOUND
    if listing is not None:
        return _show(state, listing, _ids(options.get("-gi")))
    with changing_state(directory) as state:
        return _change(directory, state, options)


def _options(arguments: list[str]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        name = _LONG.get(name, name)
        if name in _FLAGS:
            found[name] = ""
        elif name in _VALUED and (equals or rest):
            found[name] = value if equals else rest.pop(0)
        elif name == "-cci":  # its value may be left out
            found[name] = value if equals or not rest or rest[0][0] == "-" else rest.pop(0)
        else:
            return None
    return found if set(found) - {"-i", "-gi", "-ci", "-C"} else None


def _show(state: State, listing: str, gis: Ids) -> int:
    what, table = _LISTS[listing]
    if fails("list_no_permission", listing):
        print(f"Failed to display {what}: {NOT_PERMITTED}")
        return Exit.NO_PERMISSION
    text = table(state, gis)
    if text is None:
        print(f"No {'compute' if listing == '-lci' else 'GPU'} instances found: Not Found")
        return Exit.NOT_FOUND
    print(text)
    return Exit.OK


def _change(directory: Path, state: State, options: Mapping[str, str]) -> int:
    gis = _ids(options.get("-gi"))
    if "-cgi" in options:
        return create.gpu_instances(state, options["-cgi"].split(","), compute="-C" in options)
    if "-cci" in options:
        return create.compute_instances(state, options["-cci"], gis)
    used = {report["device_uuid"] for report in live_servers(directory)}
    if "-dci" in options:
        return _destroy_compute(state, gis, _ids(options.get("-ci")), used)
    return _destroy_gpu(state, gis)


def _ids(text: str | None) -> Ids:
    """The instances named; None means all."""
    return None if text is None else {int(part) for part in text.split(",") if part.isdigit()}


def _destroy_compute(state: State, gis: Ids, cis: Ids, used: set[str]) -> int:
    found = [
        (instance, ci)
        for instance in state["instances"]
        for ci in instance["cis"]
        if (gis is None or instance["gi"] in gis) and (cis is None or ci["ci"] in cis)
    ]
    if not found:
        print("No compute instances found: Not Found")
        return Exit.NOT_FOUND
    for instance, ci in found:
        where = f"compute instance ID {ci['ci']:2} from GPU  0 GPU instance ID {instance['gi']:2}"
        if ci["uuid"] in used or fails("dci_in_use"):
            return _refused("compute", where, IN_USE)
        if not fails("dci_lies"):
            instance["cis"].remove(ci)
        print(f"Successfully destroyed {where}")
    return Exit.OK


def _destroy_gpu(state: State, gis: Ids) -> int:
    found: list[dict[str, Any]] = [i for i in state["instances"] if gis is None or i["gi"] in gis]
    if not found:
        print("No GPU instances found: Not Found")
        return Exit.NOT_FOUND
    for instance in found:
        where = f"GPU instance ID {instance['gi']:2} from GPU  0"
        if instance["cis"] or fails("dgi_in_use"):
            return _refused("GPU", where, IN_USE)
        if not fails("dgi_lies"):
            state["instances"].remove(instance)
        print(f"Successfully destroyed {where}")
    return Exit.OK


def _refused(kind: str, where: str, reason: str) -> int:
    print(f"Unable to destroy {where}: {reason}")
    print(f"Failed to destroy {kind} instances: {reason}")
    return CODES[reason]
