"""What the user says of how the shares of a mode are made, beyond who gets how much."""

from __future__ import annotations

from dataclasses import dataclass, field

from fairshare.sharing.mig_facts import MigFacts
from fairshare.spec.mig import MigSpec
from fairshare.spec.sharing import MpsSpec, TimesliceSpec


@dataclass(frozen=True, slots=True)
class SharingOptions:
    """What is allowed and wanted.

    ``allow_gpu_changes``: a real GPU's driver state may be changed, and is put back;
    ``allow_gpu_reset``: also where that takes a reset of the GPU (MIG mode on Ampere).
    ``mig_facts`` are what the GPU's driver said when the run was settled (None: not asked).
    ``mig``, ``mps`` and ``timeslice`` are what the user wants of these modes.
    """

    allow_gpu_changes: bool = False
    allow_gpu_reset: bool = False
    mig: MigSpec = field(default_factory=MigSpec)
    mig_facts: MigFacts | None = None
    mps: MpsSpec = field(default_factory=MpsSpec)
    timeslice: TimesliceSpec = field(default_factory=TimesliceSpec)
