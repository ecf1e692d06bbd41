"""Where the simulated driver puts a MIG instance. Standard library only.

Instances occupy memory slices and must not overlap, and share the media engines of the GPU. The
order in which free places are tried, and the numbering of instances, reproduce NVIDIA's published
A100 transcripts (``-cgi 9,9`` gives instances 2 and 1; ``-cgi 19,19,14,9`` fails at the last);
where they say nothing it is a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_ONE_SLICE_ORDER = (6, 4, 5, 0, 1, 2, 3)
_MEDIA = slice(1, None)  # of the engines: all but the copy engines

Profile = Mapping[str, Any]


def choose_start(state: Mapping[str, Any], profile: Profile, wanted: int | None) -> int | None:
    """The first memory slice of a new instance, or None if there is no room for it."""
    if free_count(state, profile) == 0:
        return None
    taken = _taken(state)
    for start in [wanted] if wanted is not None else _preferred(profile):
        slices = _slices(start, profile["memory_slices"])
        if start in profile["starts"] and not taken & slices:
            return start
    return None


def free_count(state: Mapping[str, Any], profile: Profile) -> int:
    """How many more instances of the profile fit."""
    taken = _taken(state)
    free = 0
    for start in sorted(profile["starts"]):
        slices = _slices(start, profile["memory_slices"])
        if not taken & slices:
            taken |= slices
            free += 1
    used = [p["id"] for p in _profiles_in_use(state)].count(profile["id"])
    return max(0, min(free, int(profile["instances"]) - used, _engines_allow(state, profile)))


def instance_id(state: Mapping[str, Any], profile: Profile, start: int) -> int:
    """The GPU instance's number: 0 for the largest, then 1-2 by halves, 3-6, 7-13."""
    size, whole = int(profile["memory_slices"]), int(state["gpu"]["mig_memory_slices"])
    return whole // size - 1 + start // size


def _engines_allow(state: Mapping[str, Any], profile: Profile) -> int:
    """How many more instances the decoders, encoders, JPEG and optical-flow engines allow."""
    whole = max(state["gpu"]["mig_profiles"], key=lambda p: int(p["memory_slices"]))
    left = list(whole["engines"][_MEDIA])
    for used in _profiles_in_use(state):
        left = [a - b for a, b in zip(left, used["engines"][_MEDIA], strict=True)]
    needed = zip(left, profile["engines"][_MEDIA], strict=True)
    allowed: int = min((a // b for a, b in needed if b), default=profile["instances"])
    return allowed


def _preferred(profile: Profile) -> Iterable[int]:
    starts: list[int] = sorted(profile["starts"])
    if profile["memory_slices"] == 1:
        return [start for start in _ONE_SLICE_ORDER if start in starts]
    if profile["memory_slices"] == 2 and profile["compute_slices"] == 2:
        return starts
    return reversed(starts)


def _profiles_in_use(state: Mapping[str, Any]) -> list[Profile]:
    by_id = {profile["id"]: profile for profile in state["gpu"]["mig_profiles"]}
    return [by_id[instance["profile_id"]] for instance in state["instances"]]


def _taken(state: Mapping[str, Any]) -> set[int]:
    return {s for i in state["instances"] for s in _slices(i["start"], i["size"])}


def _slices(start: int, size: int) -> set[int]:
    return set(range(start, start + size))
