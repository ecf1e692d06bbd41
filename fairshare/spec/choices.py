"""The choices there are in how a sweep is made. No pydantic: the command line offers them."""

from __future__ import annotations

from enum import StrEnum

CLOCKS = r"^[1-9]\d{1,4}(,[1-9]\d{1,4})?$"  # MHz: one value, or the lowest and the highest


class Partitioning(StrEnum):
    """How MPS divides the SMs."""

    LIMITS = "limits"  # ceilings: what one tenant leaves idle, others use
    STATIC = "static"  # SMs of each tenant's own; idle ones are not lent


class TimeslicePolicy(StrEnum):
    """How long the driver lets one process compute before the next has its turn."""

    DEFAULT = "default"
    SHORT = "short"
    MEDIUM = "medium"
    LONG = "long"


class Order(StrEnum):
    """In which order the cells of a sweep are run; those of one deployment stay together."""

    INTERLEAVED = "interleaved"  # round by round, every second one backwards
    GROUPED = "grouped"  # all repetitions of a deployment at once: servers start once
    RANDOM = "random"  # round by round, each shuffled
