"""All policies by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairshare.scheduling.fcfs import Fcfs
from fairshare.scheduling.policy import SchedulingPolicy, Tenants


def policy_for(
    name: str, options: Mapping[str, Any] | None = None, tenants: Tenants | None = None
) -> SchedulingPolicy:
    """A new policy of that name (or of one of its aliases), with its options, nobody waiting.

    Raises:
        ValueError: there is no such policy, or it has no such option; the text says what there is.
    """
    del tenants
    if name != Fcfs.name:
        raise ValueError(f"there is no policy {name!r}; there is: {Fcfs.name}")
    if options:
        raise ValueError(f"{name} has no option {next(iter(options))!r}")
    return Fcfs()
