"""Where the simulated driver puts a MIG instance. Standard library only.

Instances occupy memory slices and must not overlap. The order in which free places are tried, and
the numbering of instances, reproduce NVIDIA's published A100 transcripts (``-cgi 9,9`` gives
instances 2 and 1; ``-cgi 19,19,14,9`` fails at the last); where they say nothing it is a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_ONE_SLICE_ORDER = (6, 4, 5, 0, 1, 2, 3)


def choose_start(
    state: Mapping[str, Any], profile: Mapping[str, Any], wanted: int | None
) -> int | None:
    """The first memory slice of a new instance, or None if there is no room for it."""
    if _count(state, profile) >= profile["instances"]:
        return None
    taken = _taken(state)
    for start in [wanted] if wanted is not None else _preferred(profile):
        slices = _slices(start, profile["memory_slices"])
        if start in profile["starts"] and not taken & slices:
            return start
    return None


def free_count(state: Mapping[str, Any], profile: Mapping[str, Any]) -> int:
    """How many more instances of the profile fit."""
    taken = _taken(state)
    free = 0
    for start in sorted(profile["starts"]):
        slices = _slices(start, profile["memory_slices"])
        if not taken & slices:
            taken |= slices
            free += 1
    limit: int = profile["instances"]
    return min(free, limit - _count(state, profile))


def instance_id(profile: Mapping[str, Any], start: int) -> int:
    """The GPU instance's number: 0 for the largest, then 1-2 by halves, 3-6, 7-13.

    Whether memory comes in eight slices or in twelve (RTX PRO 6000, where it is a guess).
    """
    size: int = profile["memory_slices"]
    if size in (8, 12):
        return 0
    first = {4: 1, 6: 1, 2: 3, 3: 3, 1: 7}
    return first[size] + start // size


def _preferred(profile: Mapping[str, Any]) -> Iterable[int]:
    starts: list[int] = sorted(profile["starts"])
    if profile["memory_slices"] == 1:
        return [start for start in _ONE_SLICE_ORDER if start in starts]
    if profile["memory_slices"] == 2 and profile["compute_slices"] == 2:
        return starts
    return reversed(starts)


def _count(state: Mapping[str, Any], profile: Mapping[str, Any]) -> int:
    return sum(instance["profile_id"] == profile["id"] for instance in state["instances"])


def _taken(state: Mapping[str, Any]) -> set[int]:
    return {s for i in state["instances"] for s in _slices(i["start"], i["size"])}


def _slices(start: int, size: int) -> set[int]:
    return set(range(start, start + size))
