"""The choices there are in how shares are made. No pydantic: the command line offers them."""

from __future__ import annotations

from enum import StrEnum


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
