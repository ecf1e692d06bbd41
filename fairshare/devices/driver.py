"""How a device's driver is reached: NVIDIA's own, or the stand-ins of a simulated GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fairshare.devices.nvml import Nvml

STATE_VARIABLE = "FAIRSHARE_VIRTUAL_GPU"  # names the folder of a simulated GPU


@dataclass(frozen=True, slots=True)
class Driver:
    """``env`` is set over our own environment when a driver tool is run; ``nvml`` is asked."""

    env: Mapping[str, str] = field(default_factory=dict)
    nvml: Nvml = field(default_factory=Nvml)
