"""``nvidia-smi mig ...`` of the stand-in: list, create and destroy instances."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairshare.virtual import nvidia_smi_tables as tables
from fairshare.virtual.nvidia_smi_text import IN_USE, INSUFFICIENT, Exit
from fairshare.virtual.placement import choose_start, instance_id
from fairshare.virtual.processes import live_servers
from fairshare.virtual.state import State, changing_state, failures, read_state

_LISTS = {"-lgip": tables.profiles, "-lgipp": tables.placements}
_FLAGS = ("-C", "-lgip", "-lgipp", "-lgi", "-lci", "-dgi", "-dci")
_VALUED = ("-i", "-gi", "-ci", "-cgi")


def run(directory: Path, arguments: list[str]) -> int:
    """Do one ``mig`` command."""
    options = _options(arguments)
    if options is None:
        print("Invalid combination of input arguments. Please run 'nvidia-smi mig -h' for help.")
        return Exit.INVALID
    state = read_state(directory)
    gpu = state["gpu"]
    if options.get("-i", "0") not in ("0", gpu["uuid"], gpu["bus_id"]):
        print("No devices were found")
        return Exit.NOT_FOUND
    if not gpu["mig_profiles"]:
        print("No MIG-supported devices found.")
        return Exit.NOT_FOUND
    return _act(directory, state, options)


def _act(directory: Path, state: State, options: Mapping[str, str]) -> int:
    for name, listing in _LISTS.items():
        if name in options:
            print(listing(state))
            return Exit.OK
    if state["mig_mode"]["current"] != "Enabled":
        print("No MIG-enabled devices found.")
        return Exit.NOT_FOUND
    if "-lgi" in options:
        return _listed("GPU", tables.gpu_instances(state))
    if "-lci" in options:
        return _listed("compute", tables.compute_instances(state))
    return _change(directory, options)


def _options(arguments: list[str]) -> dict[str, str] | None:
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name = rest.pop(0)
        if name in _FLAGS:
            found[name] = ""
        elif name in _VALUED and rest:
            found[name] = rest.pop(0)
        else:
            return None
    return found if set(found) - {"-i", "-gi", "-ci", "-C"} else None


def _listed(kind: str, table: str | None) -> int:
    if table is None:
        print(f"No {kind} instances found: Not Found")
        return Exit.NOT_FOUND
    print(table)
    return Exit.OK


def _change(directory: Path, options: Mapping[str, str]) -> int:
    with changing_state(directory) as state:
        if "-cgi" in options:
            return _create(state, options["-cgi"].split(","), compute="-C" in options)
        used = {report["device_uuid"] for report in live_servers(directory)}
        if "-dci" in options:
            return _destroy_compute(state, _ids(options.get("-gi")), _ids(options.get("-ci")), used)
        return _destroy_gpu(state, _ids(options.get("-gi")))


def _ids(text: str | None) -> set[int] | None:
    """The instances named; None means all."""
    return None if text is None else {int(part) for part in text.split(",") if part.isdigit()}


def _create(state: State, wanted: list[str], *, compute: bool) -> int:
    """Create one instance after the other; what came before a failure stays, as in reality."""
    for number, text in enumerate(wanted):
        name, _, place = text.strip().removeprefix("MIG ").partition(":")
        profile = _profile(state, name)
        if profile is None or (place and not place.isdigit()):
            shown = f"Unable to create a GPU instance on GPU  0 using profile {name}"
            print(f"{shown}: Invalid Argument")
            print("Failed to create GPU instances: Invalid Argument")
            return Exit.INVALID
        start = choose_start(state, profile, int(place) if place else None)
        if "cgi_insufficient" in failures() and number == len(wanted) - 1:
            start = None
        if start is None:
            shown = f"Unable to create a GPU instance on GPU  0 using profile {name}"
            print(f"{shown}: {INSUFFICIENT}")
            print(f"Failed to create GPU instances: {INSUFFICIENT}")
            return Exit.INSUFFICIENT
        _create_one(state, profile, start, compute=compute)
    return Exit.OK


def _create_one(state: State, profile: Mapping[str, Any], start: int, *, compute: bool) -> None:
    gi = instance_id(state, profile, start)
    instance: dict[str, Any] = {
        "gi": gi,
        "profile_id": profile["id"],
        "start": start,
        "size": profile["memory_slices"],
        "cis": [],
    }
    state["instances"].append(instance)
    shown = f"using profile MIG {profile['name']}"
    print(f"Successfully created GPU instance ID {gi:2} on GPU  0 {shown} (ID {profile['id']:2})")
    if compute:
        instance["cis"].append({"ci": 0, "uuid": f"MIG-{uuid.uuid4()}"})
        ci_profile = tables.COMPUTE_PROFILE[profile["compute_slices"]]
        print(
            f"Successfully created compute instance ID  0 on GPU  0 GPU instance ID {gi:2} "
            f"{shown} (ID {ci_profile:2})"
        )


def _profile(state: State, name: str) -> dict[str, Any] | None:
    for profile in state["gpu"]["mig_profiles"]:
        if name in (str(profile["id"]), profile["name"]):
            found: dict[str, Any] = profile
            return found
    return None


def _destroy_compute(
    state: State, gis: set[int] | None, cis: set[int] | None, used: set[str]
) -> int:
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
        if ci["uuid"] in used or "dci_in_use" in failures():
            print(f"Unable to destroy {where}: {IN_USE}")
            print(f"Failed to destroy compute instances: {IN_USE}")
            return Exit.IN_USE
        instance["cis"].remove(ci)
        print(f"Successfully destroyed {where}")
    return Exit.OK


def _destroy_gpu(state: State, gis: set[int] | None) -> int:
    found = [i for i in state["instances"] if gis is None or i["gi"] in gis]
    if not found:
        print("No GPU instances found: Not Found")
        return Exit.NOT_FOUND
    for instance in found:
        where = f"GPU instance ID {instance['gi']:2} from GPU  0"
        if instance["cis"]:
            print(f"Unable to destroy {where}: {IN_USE}")
            print(f"Failed to destroy GPU instances: {IN_USE}")
            return Exit.IN_USE
        state["instances"].remove(instance)
        print(f"Successfully destroyed {where}")
    return Exit.OK
