"""The tables of ``nvidia-smi mig``, column for column as driver 580 prints them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairshare.virtual.placement import free_count

# Compute slices of a GPU instance to the compute-instance profile that fills it.
COMPUTE_PROFILE = {1: 0, 2: 1, 3: 2, 4: 3, 7: 4}
_PROFILES_HEAD = """\
+-------------------------------------------------------------------------------+
| GPU instance profiles:                                                        |
| GPU   Name               ID    Instances   Memory     P2P    SM    DEC   ENC  |
|                                Free/Total   GiB              CE    JPEG  OFA  |
|===============================================================================|"""
_GPU_INSTANCES_HEAD = """\
+-------------------------------------------------------+
| GPU instances:                                        |
| GPU   Name             Profile  Instance   Placement  |
|                          ID       ID       Start:Size |
|=======================================================|"""
_COMPUTE_INSTANCES_HEAD = """\
+--------------------------------------------------------------------+
| Compute instances:                                                 |
| GPU     GPU       Name             Profile   Instance   Placement  |
|       Instance                       ID        ID       Start:Size |
|         ID                                                         |
|====================================================================|"""


def profiles(state: Mapping[str, Any]) -> str:
    """``mig -lgip``."""
    lines = [_PROFILES_HEAD]
    for profile in state["gpu"]["mig_profiles"]:
        copy, decode, encode, jpeg, ofa = profile["engines"]
        name = f"MIG {profile['name']}"
        free = free_count(state, profile)
        lines.append(
            f"|{0:>4}  {name:<18}{profile['id']:>4}{free:>6}/{profile['instances']:<9}"
            f"{profile['memory_gib']:<11.2f}No{profile['sm']:>7}{decode:>6}{encode:>6}   |"
        )
        lines.append(f"|{copy:>64}{jpeg:>6}{ofa:>6}   |")
        lines.append(_rule(_PROFILES_HEAD))
    return "\n".join(lines)


def placements(state: Mapping[str, Any]) -> str:
    """``mig -lgipp``."""
    lines = []
    for profile in state["gpu"]["mig_profiles"]:
        starts = ",".join(map(str, profile["starts"]))
        word = "Placements" if len(profile["starts"]) > 1 else "Placement "
        lines.append(
            f"GPU  0 Profile ID {profile['id']:2} {word}: {{{starts}}}:{profile['memory_slices']}"
        )
    return "\n".join(lines)


def gpu_instances(state: Mapping[str, Any]) -> str | None:
    """``mig -lgi``; None if there are none."""
    rows = [
        f"|{0:>4}  {'MIG ' + profile['name']:<18}{profile['id']:>4}{instance['gi']:>9}"
        f"{instance['start']:>11}:{instance['size']:<6}|"
        for instance, profile in _instances(state)
    ]
    return _table(_GPU_INSTANCES_HEAD, rows)


def compute_instances(state: Mapping[str, Any]) -> str | None:
    """``mig -lci``; None if there are none."""
    rows = [
        f"|{0:>4}{instance['gi']:>7}       {'MIG ' + profile['name']:<18}"
        f"{COMPUTE_PROFILE[profile['compute_slices']]:>4}{ci['ci']:>10}"
        f"{0:>11}:{profile['compute_slices']:<6}|"
        for instance, profile in _instances(state)
        for ci in instance["cis"]
    ]
    return _table(_COMPUTE_INSTANCES_HEAD, rows)


def _instances(state: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    by_id = {profile["id"]: profile for profile in state["gpu"]["mig_profiles"]}
    ordered = sorted(state["instances"], key=lambda instance: int(instance["gi"]))
    return [(instance, by_id[instance["profile_id"]]) for instance in ordered]


def _table(head: str, rows: list[str]) -> str | None:
    if not rows:
        return None
    rule = _rule(head)
    return "\n".join([head, *(line for row in rows for line in (row, rule))])


def _rule(head: str) -> str:
    return head.partition("\n")[0]
