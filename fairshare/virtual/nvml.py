"""Stand-in for ``pynvml`` over a simulated GPU: the same names, values and errors.

An open session is a client of the GPU, as in reality: while one is open anywhere, a change of MIG
mode stays pending.
"""
# ruff: noqa: N802 - the functions are named as pynvml names them

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairshare.virtual.failing import fails
from fairshare.virtual.nvml_errors import (
    NVMLError,
    NVMLError_DriverNotLoaded,
    NVMLError_FunctionNotFound,
    NVMLError_GpuIsLost,
    NVMLError_LibraryNotFound,
    NVMLError_NotFound,
    NVMLError_NotSupported,
    NVMLError_Uninitialized,
)
from fairshare.virtual.processes import close_client, live_servers, mps_servers, open_client
from fairshare.virtual.state import MigDevice, State, mig_devices, read_state
from fairshare.virtual.telemetry import BusyMeter

_CORES_PER_SM = {"8.0": 64}  # 128 on every other architecture simulated
_COMPUTE_MODES = {"Default": 0, "Prohibited": 2, "Exclusive_Process": 3}
_SW_THERMAL_SLOWDOWN = 0x20
_NOT_IN_MIG = 0xFFFFFFFF  # what NVML gives as instance id without MIG
_MIG_DEVICES = 7  # NVML's maximum, whatever the mode is
_MIB = 1024**2
_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Memory:
    """Of a device, in bytes."""

    total: int
    free: int
    used: int


@dataclass(frozen=True, slots=True)
class Utilization:
    """Whole per cent; of the memory there is no figure."""

    gpu: int
    memory: None = None


@dataclass(frozen=True, slots=True)
class Process:
    """A process with a compute context."""

    pid: int
    usedGpuMemory: int | None  # noqa: N815 - pynvml's name
    gpuInstanceId: int  # noqa: N815 - pynvml's name
    computeInstanceId: int  # noqa: N815 - pynvml's name


@dataclass(frozen=True, slots=True)
class PciInfo:
    """Where a device is plugged in."""

    busId: str  # noqa: N815 - pynvml's name


@dataclass(frozen=True, slots=True)
class _Handle:
    """The GPU, or one of its MIG devices by UUID."""

    meter: BusyMeter
    mig_uuid: str | None = None


class StandInNvml:
    """NVML of the simulated GPU in ``directory``; functions that it lacks are not supported."""

    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_DEVICE_MIG_DISABLE = 0
    NVML_DEVICE_MIG_ENABLE = 1
    NVML_FEATURE_DISABLED = 0
    NVML_FEATURE_ENABLED = 1
    NVML_COMPUTEMODE_DEFAULT = 0
    NVML_COMPUTEMODE_PROHIBITED = 2
    NVML_COMPUTEMODE_EXCLUSIVE_PROCESS = 3
    NVMLError = NVMLError
    NVMLError_DriverNotLoaded = NVMLError_DriverNotLoaded
    NVMLError_FunctionNotFound = NVMLError_FunctionNotFound
    NVMLError_GpuIsLost = NVMLError_GpuIsLost
    NVMLError_LibraryNotFound = NVMLError_LibraryNotFound
    NVMLError_NotFound = NVMLError_NotFound
    NVMLError_NotSupported = NVMLError_NotSupported
    NVMLError_Uninitialized = NVMLError_Uninitialized

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._sessions = 0
        self._client: Path | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """A function of NVML for which a simulated GPU has no figure."""
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def unsupported(*_: object) -> Any:
            raise NVMLError_NotSupported

        return unsupported

    def nvmlInit(self) -> None:
        """Open a session; each is to be closed."""
        if not (self._directory / "state.json").exists():
            raise NVMLError_LibraryNotFound
        if fails("driver_missing", directory=self._directory):
            raise NVMLError_DriverNotLoaded
        with self._lock:
            if self._sessions == 0:
                try:
                    self._client = open_client(self._directory)
                except OSError:
                    raise NVMLError from None
            self._sessions += 1

    def nvmlShutdown(self) -> None:
        """Close a session."""
        with self._lock:
            if self._sessions == 0:
                raise NVMLError_Uninitialized
            self._sessions -= 1
            if self._sessions == 0 and self._client is not None:
                close_client(self._client)

    def nvmlSystemGetDriverVersion(self) -> str:
        """Such as ``580.105.08``."""
        return str(self._state()["gpu"]["driver_version"])

    def nvmlDeviceGetCount(self) -> int:
        """There is one GPU in each folder."""
        self._state()
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> _Handle:
        """Index 0 is the GPU."""
        self._state()
        if index != 0:
            raise NVMLError_NotFound
        return _Handle(BusyMeter(self._directory))

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> _Handle:
        """The GPU by its UUID or as ``virtual:...``, or a MIG device by its UUID."""
        state = self._state()
        meter = BusyMeter(self._directory)
        if uuid == state["gpu"]["uuid"] or uuid.startswith("virtual:"):
            return _Handle(meter)
        if any(device.uuid == uuid for device in mig_devices(state)):
            return _Handle(meter, uuid)
        raise NVMLError_NotFound

    def nvmlDeviceGetHandleByPciBusId(self, bus_id: str) -> _Handle:
        """The GPU by its PCI address."""
        if bus_id != self._state()["gpu"]["bus_id"]:
            raise NVMLError_NotFound
        return _Handle(BusyMeter(self._directory))

    def nvmlDeviceGetName(self, handle: _Handle) -> str:
        """The product name, and of a MIG device its profile too."""
        state = self._state()
        name = str(state["gpu"]["name"])
        device = _mig_device(state, handle)
        return name if device is None else f"{name} MIG {device.profile['name']}"

    def nvmlDeviceGetUUID(self, handle: _Handle) -> str:
        """Of the GPU or of the MIG device."""
        return handle.mig_uuid or str(self._state()["gpu"]["uuid"])

    def nvmlDeviceGetPciInfo(self, handle: _Handle) -> PciInfo:
        """The PCI address."""
        del handle
        return PciInfo(str(self._state()["gpu"]["bus_id"]))

    def nvmlDeviceGetCudaComputeCapability(self, handle: _Handle) -> tuple[int, int]:
        """Major and minor."""
        del handle
        major, _, minor = str(self._state()["gpu"]["compute_capability"]).partition(".")
        return int(major), int(minor)

    def nvmlDeviceGetNumGpuCores(self, handle: _Handle) -> int:
        """CUDA cores of the whole GPU."""
        if handle.mig_uuid:
            raise NVMLError_NotSupported
        gpu = self._state()["gpu"]
        return int(gpu["sm_count"]) * _CORES_PER_SM.get(gpu["compute_capability"], 128)

    def nvmlDeviceGetComputeMode(self, handle: _Handle) -> int:
        """One of the ``NVML_COMPUTEMODE_`` values."""
        del handle
        return _COMPUTE_MODES[self._state()["compute_mode"]]

    def nvmlDeviceGetPersistenceMode(self, handle: _Handle) -> int:
        """Whether the driver stays loaded without clients."""
        del handle
        return int(self._state()["persistence_mode"] == "Enabled")

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: _Handle) -> int:
        """None, but for the knob ``clocks_slowed``: the driver slows them down for heat."""
        del handle
        self._state()  # a GPU that is gone tells nothing
        return _SW_THERMAL_SLOWDOWN if fails("clocks_slowed", directory=self._directory) else 0

    nvmlDeviceGetCurrentClocksThrottleReasons = nvmlDeviceGetCurrentClocksEventReasons  # noqa: N815

    def nvmlDeviceGetMigMode(self, handle: _Handle) -> list[int]:
        """Current and pending."""
        state = self._state()
        if handle.mig_uuid or not state["gpu"]["mig_profiles"]:
            raise NVMLError_NotSupported
        mode = state["mig_mode"]
        return [int(mode["current"] == "Enabled"), int(mode["pending"] == "Enabled")]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: _Handle) -> int:
        """How many MIG devices there can be; a MIG device has none."""
        if handle.mig_uuid:
            raise NVMLError_NotSupported
        return _MIG_DEVICES if self._state()["gpu"]["mig_profiles"] else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: _Handle, index: int) -> _Handle:
        """A MIG device; a GPU instance without a compute instance is none."""
        devices = mig_devices(self._state())
        if index >= len(devices):
            raise NVMLError_NotFound
        return _Handle(handle.meter, devices[index].uuid)

    def nvmlDeviceIsMigDeviceHandle(self, handle: _Handle) -> bool:
        """Whether it is a MIG device's."""
        return handle.mig_uuid is not None

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: _Handle) -> _Handle:
        """The GPU of a MIG device."""
        return _Handle(handle.meter)

    def nvmlDeviceGetIndex(self, handle: _Handle) -> int:
        """Of a GPU on the machine; of a MIG device on its GPU."""
        device = _mig_device(self._state(), handle)
        return 0 if device is None else device.index

    def nvmlDeviceGetGpuInstanceId(self, handle: _Handle) -> int:
        """Of a MIG device."""
        return self._mig(handle).gi

    def nvmlDeviceGetComputeInstanceId(self, handle: _Handle) -> int:
        """Of a MIG device."""
        return self._mig(handle).ci

    def nvmlDeviceGetMemoryInfo(self, handle: _Handle) -> Memory:
        """Of the GPU or of the MIG device."""
        state = self._state()
        device = _mig_device(state, handle)
        if device is None:
            total = int(state["gpu"]["memory_mib"]) * _MIB
        else:
            total = round(device.profile["memory_gib"] * _GIB)
        used = sum(report["used_bytes"] for report in self._reports(handle))
        return Memory(total, total - used, used)

    def nvmlDeviceGetUtilizationRates(self, handle: _Handle) -> Utilization:
        """Since this handle was last asked. In MIG mode there is none, as on a real GPU."""
        state = self._state()
        if handle.mig_uuid or state["mig_mode"]["current"] == "Enabled":
            raise NVMLError_NotSupported
        try:
            fraction = handle.meter.utilisation()
        except OSError:
            raise NVMLError_GpuIsLost from None
        if fraction is None:
            raise NVMLError_NotSupported
        return Utilization(round(100 * fraction))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: _Handle) -> list[Process]:
        """Processes that use the device by themselves."""
        return self._processes(handle, mps=False)

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: _Handle) -> list[Process]:
        """Processes that use the device through MPS."""
        return self._processes(handle, mps=True)

    def _processes(self, handle: _Handle, *, mps: bool) -> list[Process]:
        devices = {device.uuid: device for device in mig_devices(self._state())}
        found = []
        for report in self._reports(handle):
            if (report.get("sharing") == "mps") is mps:
                device = devices.get(report["device_uuid"])
                gi, ci = (_NOT_IN_MIG, _NOT_IN_MIG) if device is None else (device.gi, device.ci)
                found.append(Process(report["pid"], report["used_bytes"], gi, ci))
        if not mps and handle.mig_uuid is None:  # an MPS server itself computes by itself
            for pid in mps_servers(self._directory):
                found.append(Process(pid, None, _NOT_IN_MIG, _NOT_IN_MIG))
        return found

    def _reports(self, handle: _Handle) -> list[dict[str, Any]]:
        return [
            report
            for report in live_servers(self._directory)
            if handle.mig_uuid in (None, report["device_uuid"])
        ]

    def _mig(self, handle: _Handle) -> MigDevice:
        device = _mig_device(self._state(), handle)
        if device is None:
            raise NVMLError_NotSupported
        return device

    def _state(self) -> State:
        if self._sessions == 0:
            raise NVMLError_Uninitialized
        try:
            return read_state(self._directory)
        except (OSError, ValueError):
            raise NVMLError_GpuIsLost from None


def _mig_device(state: State, handle: _Handle) -> MigDevice | None:
    """The MIG device of a handle; None if it is the GPU's."""
    if handle.mig_uuid is None:
        return None
    for device in mig_devices(state):
        if device.uuid == handle.mig_uuid:
            return device
    raise NVMLError_NotFound  # destroyed meanwhile
