"""NVIDIA GPUs as NVML tells of them. The only importer of ``pynvml``.

An initialised NVML counts as a client of the GPU and can block a change of MIG mode, so every
session here is short, except a sampler's, which lives for one measured window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

from fairshare.devices.constants import spec_of_product

T = TypeVar("T")

_ARCHITECTURES = {  # by major and minor compute capability
    (7, 0): "volta",
    (7, 5): "turing",
    (8, 0): "ampere",
    (8, 6): "ampere",
    (8, 9): "ada",
    (9, 0): "hopper",
    (10, 0): "blackwell",
    (12, 0): "blackwell",
}
_COMPUTE_MODES = {0: "Default", 1: "Exclusive_Thread", 2: "Prohibited", 3: "Exclusive_Process"}
_SWITCHED = {False: "Disabled", True: "Enabled"}
# Bits of NVML's clocks event reasons that are no normal consequence of load.
_SLOWDOWNS = {
    0x08: "the hardware slows it down",
    0x20: "the driver slows it down for its heat",
    0x40: "the hardware slows it down for its heat",
    0x80: "the power supply asks it to brake",
}
_OLDER_REASONS = "nvmlDeviceGetCurrentClocksThrottleReasons"
NOT_SLOWED = "nothing"  # as a sample says it
_CORES_PER_SM = {(7, 0): 64, (7, 5): 64, (8, 0): 64}  # 128 since


class NvmlUnavailableError(Exception):
    """NVML cannot be used here; the message is the reason, for people."""


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that has a compute context on a GPU."""

    pid: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of this machine. What NVML does not say is None."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    driver: str | None
    sm_count: int | None
    architecture: str | None
    mig_capable: bool
    processes: tuple[GpuProcess, ...]


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One reading; utilisations are fractions, absent values None (never zero).

    ``slowdowns`` say what holds the clocks down, or ``nothing``.
    """

    gpu_utilisation: float | None = None
    memory_utilisation: float | None = None
    memory_used_bytes: int | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    slowdowns: str | None = None


@dataclass(frozen=True, slots=True)
class GpuCondition:
    """The driver's settings of one GPU, and whether it runs as fast as it can.

    ``compute_mode`` and ``mig`` (current, pending) are as ``nvidia-smi`` spells them; ``cuda`` is
    the newest CUDA that the driver runs; ``slowdowns`` say what holds the clocks down.
    """

    compute_mode: str | None = None
    persistent: bool | None = None
    mig: tuple[str, str] | None = None
    used_bytes: int | None = None
    cuda: tuple[int, int] | None = None
    slowdowns: tuple[str, ...] = ()


class Nvml:
    """What NVML tells; ``library`` is ``pynvml``, or what stands in for it on a simulated GPU."""

    def __init__(self, library: Any = None) -> None:
        self._library = library
        self._samplers: WeakSet[NvmlSampler] = WeakSet()

    def list_gpus(self) -> list[Gpu]:
        """Every GPU of this machine, with the compute processes on it.

        Raises:
            NvmlUnavailableError: there is no usable NVML, and why.
        """
        with self._session() as nvml:
            driver = _optional(nvml, nvml.nvmlSystemGetDriverVersion)
            handles = [
                (index, _optional(nvml, partial(nvml.nvmlDeviceGetHandleByIndex, index)))
                for index in range(nvml.nvmlDeviceGetCount())
            ]
            return [
                _gpu(nvml, index, handle, driver) for index, handle in handles if handle is not None
            ]

    def compute_processes(self, uuid: str) -> list[GpuProcess]:
        """Processes with a compute context on the GPU, its MIG devices included.

        Raises:
            NvmlUnavailableError: there is no usable NVML or no such GPU.
        """
        with self._session() as nvml:
            return list(_processes(nvml, _handle(nvml, uuid)))

    def condition(self, uuid: str) -> GpuCondition:
        """How a GPU is set and how it does now.

        Raises:
            NvmlUnavailableError: there is no usable NVML or no such GPU.
        """
        with self._session() as nvml:
            return _condition(nvml, _handle(nvml, uuid))

    def sampler(self, uuid: str) -> NvmlSampler:
        """A reader of one GPU's counters."""
        sampler = NvmlSampler(uuid, self._start)
        self._samplers.add(sampler)
        return sampler

    def is_held(self) -> bool:
        """Whether a sampler of ours holds a GPU open, which keeps its MIG mode from changing."""
        return any(sampler.is_open for sampler in self._samplers)

    @contextmanager
    def _session(self) -> Iterator[Any]:
        """An initialised library.

        Raises:
            NvmlUnavailableError: no library, no driver, or NVML refuses.
        """
        nvml = self._start()
        try:
            yield nvml
        finally:
            nvml.nvmlShutdown()

    def _start(self) -> Any:
        nvml = self._library or _pynvml()
        try:
            nvml.nvmlInit()
        except nvml.NVMLError_LibraryNotFound:
            raise NvmlUnavailableError("no NVIDIA driver: libnvidia-ml.so was not found") from None
        except nvml.NVMLError_DriverNotLoaded:
            raise NvmlUnavailableError("the NVIDIA driver is not loaded") from None
        except nvml.NVMLError as error:
            raise NvmlUnavailableError(f"NVML does not start: {error}") from None
        return nvml


def _pynvml() -> Any:
    try:
        import pynvml  # noqa: PLC0415 - lazy: most runs never need it
    except ImportError:
        raise NvmlUnavailableError("the Python package nvidia-ml-py is not installed") from None
    return pynvml


class NvmlSampler:
    """Reads one GPU's counters; holds NVML open from the first sample until closed."""

    def __init__(self, uuid: str, start: Callable[[], Any]) -> None:
        self._uuid = uuid
        self._start = start
        self._opened: tuple[Any, Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether it holds NVML open now."""
        return self._opened is not None

    def sample(self) -> GpuSample | None:
        """What the GPU says now; None if it says nothing at all.

        Raises:
            NvmlUnavailableError: there is no usable NVML or no such GPU.
        """
        nvml, gpu = self._open()

        def read(query: Callable[[], T]) -> T | None:
            return _optional(nvml, query)

        rates = read(lambda: nvml.nvmlDeviceGetUtilizationRates(gpu))
        memory = read(lambda: nvml.nvmlDeviceGetMemoryInfo(gpu))
        milliwatts = read(lambda: nvml.nvmlDeviceGetPowerUsage(gpu))
        sample = GpuSample(
            gpu_utilisation=None if rates is None else rates.gpu / 100,
            memory_utilisation=None
            if rates is None or rates.memory is None  # a simulated GPU has no figure
            else rates.memory / 100,
            memory_used_bytes=None if memory is None else int(memory.used),
            power_w=None if milliwatts is None else milliwatts / 1000,
            temperature_c=read(
                lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
            ),
            sm_clock_mhz=read(lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
            memory_clock_mhz=read(lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM)),
            slowdowns=None if (held := _slowdowns(nvml, gpu)) is None else _told(held),
        )
        return None if sample == GpuSample() else sample

    def close(self) -> None:
        """Let go of the GPU; a later sample takes it up again."""
        if self._opened is not None:
            self._opened[0].nvmlShutdown()
            self._opened = None

    def _open(self) -> tuple[Any, Any]:
        if self._opened is None:
            nvml = self._start()
            try:
                self._opened = nvml, _handle(nvml, self._uuid)
            except NvmlUnavailableError:
                nvml.nvmlShutdown()
                raise
        return self._opened


def _handle(nvml: Any, uuid: str) -> Any:
    try:
        return nvml.nvmlDeviceGetHandleByUUID(uuid)
    except nvml.NVMLError as error:
        raise NvmlUnavailableError(f"NVML does not know the GPU {uuid}: {error}") from None


def _gpu(nvml: Any, index: int, handle: Any, driver: str | None) -> Gpu:
    name = str(nvml.nvmlDeviceGetName(handle))
    spec = spec_of_product(name)
    capability = _optional(nvml, lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle))
    mig = _optional(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle))
    cores = _optional(nvml, lambda: nvml.nvmlDeviceGetNumGpuCores(handle))
    sm_count = spec.sm_count if spec else None
    if cores and capability:
        sm_count = cores // _CORES_PER_SM.get(tuple(capability), 128)
    return Gpu(
        index=index,
        uuid=str(nvml.nvmlDeviceGetUUID(handle)),
        name=name,
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        driver=driver,
        sm_count=sm_count,
        architecture=_ARCHITECTURES.get(tuple(capability)) if capability else None,
        mig_capable=mig is not None,
        processes=tuple(_processes(nvml, handle)),
    )


def _condition(nvml: Any, handle: Any) -> GpuCondition:
    mode = _optional(nvml, lambda: nvml.nvmlDeviceGetComputeMode(handle))
    persistent = _optional(nvml, lambda: nvml.nvmlDeviceGetPersistenceMode(handle))
    mig = _optional(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle))
    memory = _optional(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    cuda = _optional(nvml, nvml.nvmlSystemGetCudaDriverVersion)
    return GpuCondition(
        compute_mode=None if mode is None else _COMPUTE_MODES.get(int(mode), f"mode {mode}"),
        persistent=None if persistent is None else bool(persistent),
        mig=None if mig is None else (_SWITCHED[bool(mig[0])], _SWITCHED[bool(mig[1])]),
        used_bytes=None if memory is None else int(memory.used),
        cuda=None if cuda is None else (cuda // 1000, cuda % 1000 // 10),
        slowdowns=_slowdowns(nvml, handle) or (),
    )


def _slowdowns(nvml: Any, handle: Any) -> tuple[str, ...] | None:
    """What holds the clocks down now; None where the driver does not tell.

    The reasons are called "clocks event reasons" since R535, and "throttle reasons" before.
    """
    for name in ("nvmlDeviceGetCurrentClocksEventReasons", _OLDER_REASONS):
        if (ask := getattr(nvml, name, None)) is not None:
            reasons = _optional(nvml, partial(ask, handle))
            if reasons is not None:
                return tuple(text for bit, text in _SLOWDOWNS.items() if reasons & bit)
    return None


def _told(slowdowns: tuple[str, ...]) -> str:
    return "; ".join(slowdowns) or NOT_SLOWED


def _processes(nvml: Any, handle: Any) -> Iterator[GpuProcess]:
    """Compute processes, MPS clients too; on a GPU in MIG mode they are listed per MIG device."""
    handles = [handle]
    for index in range(_optional(nvml, lambda: nvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0):
        mig = _optional(nvml, partial(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index))
        if mig is not None:
            handles.append(mig)
    seen: set[int] = set()
    for device in handles:
        for listing in (
            nvml.nvmlDeviceGetComputeRunningProcesses,
            nvml.nvmlDeviceGetMPSComputeRunningProcesses,
        ):
            for process in _optional(nvml, partial(listing, device)) or ():
                if process.pid not in seen:
                    seen.add(process.pid)
                    yield GpuProcess(process.pid, process.usedGpuMemory)


def _optional(nvml: Any, query: Callable[[], T]) -> T | None:
    """What NVML answers, or None where this GPU or driver has no answer."""
    try:
        return query()
    except nvml.NVMLError:
        return None
