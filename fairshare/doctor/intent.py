"""What is about to be run, as far as the checks depend on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fairshare.devices.device import Device
from fairshare.devices.driver import STATE_VARIABLE, Driver
from fairshare.records import Mode
from fairshare.sharing.mig_table import smi_name
from fairshare.sharing.options import SharingOptions
from fairshare.spec.launcher import DeviceKind, Engine, Launcher


@dataclass(frozen=True, slots=True)
class Intent:
    """A run to be.

    ``device`` is None where the one asked for could not be found: ``missing`` says why then, and
    ``remedy`` what to do. Results go to ``folder``; ``model`` is for tenants that name none.
    """

    kind: DeviceKind
    modes: frozenset[Mode]
    launcher: Launcher
    folder: Path
    device: Device | None = None
    missing: str = ""
    remedy: str = ""
    model: str | None = None
    driver: Driver = field(default_factory=Driver)
    sharing: SharingOptions = field(default_factory=SharingOptions)
    allow_foreign: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether a driver, real or simulated, is asked and changed."""
        return self.kind in (DeviceKind.CUDA, DeviceKind.VIRTUAL)

    @property
    def real_engine(self) -> bool:
        """Whether servers are real engines, with models, started by us."""
        return self.launcher.engine not in (Engine.VIRTUAL, Engine.EXTERNAL)

    @property
    def simulated(self) -> Path | None:
        """The folder of a simulated GPU, whether it has been made or not; None on other devices."""
        folder = self.driver.env.get(STATE_VARIABLE)
        return None if folder is None else Path(folder)

    @property
    def smi(self) -> str:
        """What a person types to change the GPU, up to the option that does it."""
        return f"{self._program} -i {self.gpu_name}"

    @property
    def mig_smi(self) -> str:
        """The same for MIG instances."""
        return f"{self._program} mig -i {self.gpu_name}"

    @property
    def _program(self) -> str:
        if self.simulated is not None:
            return str(self.simulated / "bin" / "nvidia-smi")
        return "sudo nvidia-smi"

    @property
    def gpu_name(self) -> str:
        """What a person puts after ``nvidia-smi -i``."""
        return "0" if self.device is None else smi_name(self.device)
