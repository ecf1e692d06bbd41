"""What the user says of how the shares of a mode are made, beyond who gets how much."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SharingOptions:
    """``allow_gpu_changes``: a real GPU's driver state may be changed, and is put back."""

    allow_gpu_changes: bool = False
