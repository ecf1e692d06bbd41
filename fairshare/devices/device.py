"""One device that tenants can share, of any kind."""

from __future__ import annotations

from dataclasses import dataclass

from fairshare.spec.launcher import DeviceKind


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, a simulated GPU, or the CPUs of this machine.

    ``id`` is the GPU's UUID, ``cpu`` or ``virtual:<name>``; ``memory_bytes`` is the whole
    device's memory; ``cores`` the logical CPUs we may use (CPU device only); ``sm_count`` the
    streaming multiprocessors (GPU kinds only).
    """

    kind: DeviceKind
    id: str
    name: str
    memory_bytes: int
    index: int | None = None
    cores: tuple[int, ...] = ()
    sm_count: int | None = None
    architecture: str | None = None
    driver: str | None = None
    mig_capable: bool = False
