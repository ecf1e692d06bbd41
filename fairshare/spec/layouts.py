"""How a GPU is to be cut by MIG, in any spelling people have for it; flags are read by it, too."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

PROFILE = re.compile(r"[1-9]\d*g\.[1-9]\d*gb(?:[+-][a-z]+(?:\.[a-z]+)*)*")
# What surrounds mig-devices in a configuration of NVIDIA's mig-parted; the GPU is ours to choose.
_PARTED = {"devices", "device-filter", "mig-enabled", "mig-devices"}
_MOST_PARTS = 64
_FORMS = "weights such as 3:2:1:1, or profiles such as 3g.20gb,2g.10gb"


class MigHow(StrEnum):
    """Whether instances are made or imitated."""

    AUTO = "auto"  # real where that is allowed and possible, else emulated
    REAL = "real"  # real, or not at all
    EMULATED = "emulated"  # by MPS thread percentages and memory limits of the same size


def layout_text(value: Any) -> str:
    """A layout in its one spelling: weights as ``3:2:1:1``, profiles as ``3g.20gb,2g.10gb``.

    Takes these as text or as lists, and a mapping of profiles to counts as mig-parted has it.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, Mapping):
        parts = _counted(value)
    elif isinstance(value, str):
        separator = "," if PROFILE.match(value.strip()) else r"[:/,]"
        parts = [part.strip() for part in re.split(separator, value.strip())]
    elif isinstance(value, Sequence) and len(value) == 1 and isinstance(value[0], Mapping):
        parts = _counted(value[0])
    elif isinstance(value, Sequence):
        parts = [str(part).strip() for part in value]
    else:
        raise ValueError(
            f'a layout is {_FORMS}; YAML reads 3:2:1:1 as a number, so write it as "3:2:1:1"'
        )
    if not 1 <= len(parts) <= _MOST_PARTS:
        raise ValueError(f"a layout has between 1 and {_MOST_PARTS} parts")
    if all(PROFILE.fullmatch(part) for part in parts):
        return ",".join(parts)
    return ":".join(f"{_weight(part):g}" for part in parts)


def profiles_of(layout: str) -> list[str] | None:
    """The profiles that a layout names; None for one of weights."""
    return layout.split(",") if PROFILE.match(layout) else None


def shares_in(layout: str) -> list[float]:
    """The fractions of the device that a layout of weights gives."""
    weights = [float(part) for part in layout.split(":")]
    return [weight / sum(weights) for weight in weights]


def _weight(part: str) -> float:
    try:
        weight = float(part)
    except ValueError:
        raise ValueError(
            f"{part!r} is neither a number nor a MIG profile: a layout is {_FORMS}"
        ) from None
    if not (math.isfinite(weight) and 0 < weight <= 1e6):
        raise ValueError(f"{part} is no weight: it must be above 0")
    return weight


def _counted(value: Mapping[Any, Any]) -> list[str]:
    """The profiles of a mig-parted configuration, or of its ``mig-devices`` alone, in order."""
    if _PARTED & set(value):
        if unknown := set(value) - _PARTED:
            raise ValueError(f"mig-parted has no {sorted(map(str, unknown))[0]!r} here")
        if value.get("mig-enabled") is False or not isinstance(value.get("mig-devices"), Mapping):
            raise ValueError("a layout needs mig-devices, and MIG enabled")
        value = value["mig-devices"]
    parts: list[str] = []
    for name, count in value.items():
        if not PROFILE.fullmatch(str(name)):
            raise ValueError(f"{name!r} is no MIG profile (one is called 3g.20gb)")
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MOST_PARTS:
            raise ValueError(f"{name}: {count!r} is no number of instances")
        parts += [str(name)] * count
    return parts
