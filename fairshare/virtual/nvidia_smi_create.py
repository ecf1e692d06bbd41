"""``nvidia-smi mig -cgi`` and ``-cci`` of the stand-in.

One instance is made after the other; what was made before a failure stays, as in reality.
"""

from __future__ import annotations

import uuid
from typing import Any

from fairshare.virtual.failing import fails
from fairshare.virtual.nvidia_smi_tables import COMPUTE_PROFILE
from fairshare.virtual.nvidia_smi_text import CODES, INSUFFICIENT, NOT_PERMITTED, Exit
from fairshare.virtual.placement import choose_start, instance_id
from fairshare.virtual.state import State

_INVALID, _UNSUPPORTED = "Invalid Argument", "Not Supported"


def gpu_instances(state: State, wanted: list[str], *, compute: bool) -> int:
    """Make GPU instances by profile name or id, with ``:start`` or not."""
    for number, text in enumerate(wanted):
        name, colon, place = text.strip().removeprefix("MIG ").partition(":")
        if colon and not place.isdigit():
            # The misspelling is NVIDIA's.
            print(f"Unable to create a GPU instace on GPU  0 using profile {name}: "
                  "invalid placement syntax")  # fmt: skip
            return Exit.INVALID
        last = number == len(wanted) - 1
        made = _gpu_instance(state, name, int(place) if colon else None, last=last)
        if isinstance(made, str):
            print(f"Unable to create a GPU instance on GPU  0 using profile {name}: {made}")
            return _failed("GPU", made)
        if compute and not _default_compute_instance(made):
            where = f"on GPU  0 GPU instance ID {made['gi']:2}"
            print(f"Unable to create a default compute instance {where}: {INSUFFICIENT}")
            return _failed("compute", INSUFFICIENT)
    return Exit.OK


def compute_instances(state: State, wanted: str, gis: set[int] | None) -> int:
    """Make the compute instance that fills a GPU instance; smaller ones are not simulated."""
    found = [i for i in state["instances"] if gis is None or i["gi"] in gis]
    if not found:
        print("No GPU instances found: Not Found")
        return Exit.NOT_FOUND
    for instance in found:
        name = instance["profile"]
        reason = None
        if wanted.strip() not in ("", name, f"MIG {name}", str(instance["ci_profile_id"])):
            reason = _UNSUPPORTED
        elif instance["cis"] or not _default_compute_instance(instance):
            reason = INSUFFICIENT
        if reason is not None:
            where = f"on GPU  0 GPU instance ID {instance['gi']:2}"
            print(f"Unable to create a compute instance {where} using profile {wanted or name}: "
                  f"{reason}")  # fmt: skip
            return _failed("compute", reason)
    return Exit.OK


def _gpu_instance(
    state: State, name: str, place: int | None, *, last: bool
) -> dict[str, Any] | str:
    """The new instance, or why there is none."""
    profiles = state["gpu"]["mig_profiles"]
    profile = next((p for p in profiles if name in (str(p["id"]), p["name"])), None)
    if profile is None:
        return _INVALID
    if fails("cgi_no_permission"):
        return NOT_PERMITTED
    start = choose_start(state, profile, place)
    if start is None or (last and fails("cgi_insufficient")):
        return INSUFFICIENT
    gi = instance_id(state, profile, start)
    instance = {
        "gi": gi,
        "profile": profile["name"],
        "profile_id": profile["id"],
        "ci_profile_id": COMPUTE_PROFILE[profile["compute_slices"]],
        "start": start,
        "size": profile["memory_slices"],
        "cis": [],
    }
    state["instances"].append(instance)
    shown = f"profile MIG {profile['name']} (ID {profile['id']:2})"
    print(f"Successfully created GPU instance ID {gi:2} on GPU  0 using {shown}")
    return instance


def _default_compute_instance(instance: dict[str, Any]) -> bool:
    if fails("cgi_partial"):
        return False
    instance["cis"].append({"ci": 0, "uuid": f"MIG-{uuid.uuid4()}"})
    print(
        f"Successfully created compute instance ID  0 on GPU  0 GPU instance ID "
        f"{instance['gi']:2} using profile MIG {instance['profile']} "
        f"(ID {instance['ci_profile_id']:2})"
    )
    return True


def _failed(kind: str, reason: str) -> int:
    print(f"Failed to create {kind} instances: {reason}")
    return CODES[reason]
