"""Where a figure of a device or a model is from: each has a tag and a source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Evidence(StrEnum):
    """How a figure came about."""

    MEASURED = "measured"  # read off the hardware, or off a program that asked it
    DATASHEET = "datasheet"  # the maker's word
    CONFIG = "config"  # the published configuration of a model
    DERIVED = "derived"  # computed from other figures
    FITTED = "fitted"  # what makes a formula agree with measurements
    ASSUMED = "assumed"  # taken over from something alike; nobody has looked


@dataclass(frozen=True, slots=True)
class Fact:
    """A figure, how it is known, and from where."""

    value: Any
    evidence: Evidence
    source: str


def facts_in(entry: Mapping[str, Any]) -> dict[str, Fact]:
    """The ``facts`` of an entry of a data file.

    Each is a value, known as the entry's own ``evidence`` and ``source`` say, or a mapping with
    ``value`` in which it says otherwise.

    Raises:
        ValueError: a figure is not above zero.
        KeyError: something is missing.
    """
    found: dict[str, Fact] = {}
    for name, raw in entry["facts"].items():
        said = raw if isinstance(raw, dict) else {"value": raw}
        tag, source = (said.get(key, entry[key]) for key in ("evidence", "source"))
        value = said["value"]
        if value is None or (isinstance(value, int | float) and not 0 < value < math.inf):
            raise ValueError(f"{name} is {value!r}, and must be above zero")
        found[name] = Fact(value, Evidence(tag), source)
    return found
