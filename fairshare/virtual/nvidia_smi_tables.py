"""The tables of ``nvidia-smi mig``, column for column as each driver branch prints them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairshare.virtual.nvidia_smi_text import driver_branch
from fairshare.virtual.placement import free_count

# Compute slices of a GPU instance to the compute-instance profile that fills it.
COMPUTE_PROFILE = {1: 0, 2: 1, 3: 2, 4: 3, 7: 4}
_COMPUTE_SLICES = {1: (1,), 2: (1, 2), 3: (1, 2, 3), 4: (1, 2, 4), 7: (1, 2, 3, 4, 7)}
_WIDE, _PLACED = 575, 510  # first branches with wider tables, and with places of compute instances
_COMPUTE_PROFILES_HEAD = """\
+--------------------------------------------------------------------------------------+
| Compute instance profiles:                                                           |
| GPU     GPU       Name             Profile  Instances   Exclusive       Shared       |
|       Instance                       ID     Free/Total     SM       DEC   ENC   OFA  |
|         ID                                                          CE    JPEG       |
|======================================================================================|"""
_COMPUTE_INSTANCES_HEAD = """\
+--------------------------------------------------------------------+
| Compute instances:                                                 |
| GPU     GPU       Name             Profile   Instance   Placement  |
|       Instance                       ID        ID       Start:Size |
|         ID                                                         |
|====================================================================|"""
_COMPUTE_INSTANCES_OLD_HEAD = """\
+-------------------------------------------------------+
| Compute instances:                                    |
| GPU     GPU       Name             Profile   Instance |
|       Instance                       ID        ID     |
|         ID                                            |
|=======================================================|"""

State = Mapping[str, Any]
Row = Mapping[str, Any]


def profiles(state: State) -> str:
    """``mig -lgip``: 79 columns wide, 81 since R575."""
    name_width = 18 if driver_branch(state) >= _WIDE else 16
    pad = " " * (name_width - 16)
    head = "\n".join(
        (
            f"+{'-' * (61 + name_width)}+",
            f"| GPU instance profiles:{pad}                                                      |",
            f"| GPU   Name             {pad}ID    Instances   Memory     P2P    SM    DEC   ENC  |",
            f"|                        {pad}      Free/Total   GiB              CE    JPEG  OFA  |",
            f"|{'=' * (61 + name_width)}|",
        )
    )
    rows = []
    for profile in state["gpu"]["mig_profiles"]:
        copy, decode, encode, jpeg, ofa = profile["engines"]
        rows.append(
            f"|{0:>4}  {'MIG ' + profile['name']:<{name_width}}{profile['id']:>4}"
            f"{free_count(state, profile):>6}/{profile['instances']:<9}"
            f"{profile['memory_gib']:<11.2f}No     {profile['sm']:<7}{decode:<6}{encode:<4}|\n"
            f"|{copy:>{46 + name_width}}{jpeg:>6}{ofa:>6}   |"
        )
    return _table(head, rows)


def placements(state: State) -> str:
    """``mig -lgipp``."""
    lines = []
    for profile in state["gpu"]["mig_profiles"]:
        starts = ",".join(map(str, profile["starts"]))
        word = "Placements" if len(profile["starts"]) > 1 else "Placement "
        lines.append(
            f"GPU  0 Profile ID {profile['id']:2} {word}: {{{starts}}}:{profile['memory_slices']}"
        )
    return "\n".join(lines)


def gpu_instances(state: State, gis: set[int] | None) -> str | None:
    """``mig -lgi``: 57 columns wide, 59 since R575, 54 in old drivers; None if there are none."""
    branch = driver_branch(state)
    width = 20 if branch >= _WIDE else 18 if branch >= _PLACED else 15
    pad = " " * (width - 15)
    head = "\n".join(
        (
            f"+{'-' * (37 + width)}+",
            f"| GPU instances:{pad}                                     |",
            f"| GPU   Name          {pad}Profile  Instance   Placement  |",
            f"|                     {pad}  ID       ID       Start:Size |",
            f"|{'=' * (37 + width)}|",
        )
    )
    rows = [
        f"|{0:>4}  {'MIG ' + instance['profile']:<{width}}{instance['profile_id']:>4}"
        f"{instance['gi']:>9}{instance['start']:>11}:{instance['size']:<6}|"
        for instance in _instances(state, gis)
    ]
    return _table(head, rows) if rows else None


def compute_profiles(state: State, gis: set[int] | None) -> str | None:
    """``mig -lcip``; the profile with the star fills its GPU instance. None without instances."""
    rows = []
    for instance in _instances(state, gis):
        profile = _profile(state, instance)
        for slices in _COMPUTE_SLICES[profile["compute_slices"]]:
            rows.append(_compute_profile(state, instance, profile, slices))
    return _table(_COMPUTE_PROFILES_HEAD, rows) if rows else None


def _compute_profile(state: State, instance: Row, profile: Row, slices: int) -> str:
    copy, decode, encode, jpeg, ofa = profile["engines"]
    whole = slices == profile["compute_slices"]
    name = f"MIG {profile['name']}" if whole else f"MIG {slices}c.{profile['name']}"
    one = min(int(p["sm"]) for p in state["gpu"]["mig_profiles"])
    total = profile["compute_slices"] // slices
    free = 0 if instance["cis"] else total
    return (
        f"|{0:>4}{instance['gi']:>7}       {name:<18}{COMPUTE_PROFILE[slices]:>4}"
        f"{'*' if whole else ' '}{free:>6}/{total:<10}"
        f"{profile['sm'] if whole else slices * one:>4}{decode:>9}{encode:>6}{ofa:>6}   |\n"
        f"|{copy:>71}{jpeg:>6}         |"
    )


def compute_instances(state: State, gis: set[int] | None) -> str | None:
    """``mig -lci``: with placements but in old drivers; None if there are none."""
    placed = driver_branch(state) >= _PLACED
    rows = []
    for instance in _instances(state, gis):
        slices = _profile(state, instance)["compute_slices"]
        place = f"{0:>11}:{slices:<6}" if placed else " " * 5
        rows += [
            f"|{0:>4}{instance['gi']:>7}       {'MIG ' + instance['profile']:<18}"
            f"{instance['ci_profile_id']:>4}{ci['ci']:>10}{place}|"
            for ci in instance["cis"]
        ]
    head = _COMPUTE_INSTANCES_HEAD if placed else _COMPUTE_INSTANCES_OLD_HEAD
    return _table(head, rows) if rows else None


def _instances(state: State, gis: set[int] | None) -> list[Row]:
    ordered = sorted(state["instances"], key=lambda instance: int(instance["gi"]))
    return [i for i in ordered if gis is None or i["gi"] in gis]


def _profile(state: State, instance: Row) -> Row:
    by_id: dict[int, Row] = {p["id"]: p for p in state["gpu"]["mig_profiles"]}
    return by_id[instance["profile_id"]]


def _table(head: str, rows: list[str]) -> str:
    rule = head.partition("\n")[0]
    return "\n".join([head, *(line for row in rows for line in (row, rule))])
