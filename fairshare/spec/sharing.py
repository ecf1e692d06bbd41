"""How modes make their shares: what a user writes under ``mps:`` and ``timeslice:``."""

from __future__ import annotations

from fairshare.spec.base import Spec
from fairshare.spec.choices import Partitioning, TimeslicePolicy


class MpsSpec(Spec):
    """How mode ``mps`` makes its shares."""

    partitioning: Partitioning = Partitioning.LIMITS
    """limits: ceilings; static: SMs of each tenant's own (CUDA 13.1 or newer)."""


class TimesliceSpec(Spec):
    """How mode ``timeslice`` makes its shares."""

    policy: TimeslicePolicy | None = None
    """The length of the driver's time slices, put back at the end; without it, as it is."""
