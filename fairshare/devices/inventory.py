"""Which device to use, and why: what the user named, else a free GPU, else the simulated one."""

from __future__ import annotations

from fairshare.devices.constants import GpuSpec, gpu_spec
from fairshare.devices.cpu import cpu_device
from fairshare.devices.device import Device
from fairshare.devices.nvml import Gpu, Nvml, NvmlUnavailableError
from fairshare.errors import PreflightError, SpecError
from fairshare.spec.launcher import DeviceKind
from fairshare.units import format_bytes

DEFAULT_VIRTUAL = "a100-40"
KNOWN = "cuda[:INDEX], cpu, virtual[:GPU]"


def detect(spec: str | None, *, gpu: str | None = None) -> tuple[Device, str]:
    """The device that ``spec`` names and a sentence that says which and why.

    Whether others compute on a GPU that was asked for is for the doctor to say.

    Args:
        spec: ``cuda[:INDEX]``, ``cpu``, ``virtual[:GPU]``; None: a GPU if there is a free one,
            else the simulated one.
        gpu: index or UUID of a GPU; implies ``cuda``.

    Raises:
        SpecError: no such kind of device, or no such simulated GPU.
        PreflightError: a GPU was asked for and there is none that can be used.
    """
    if spec is None and gpu is None:
        return _best()
    kind, _, detail = ("cuda" if spec is None else spec).partition(":")
    if gpu is not None and kind != DeviceKind.CUDA:
        raise SpecError(f"--gpu chooses a real GPU, but the device is {spec}")
    if kind == DeviceKind.CUDA:
        found = _cuda(gpu or detail or None)
        return found, f"using {_describe(found)}, as asked"
    if kind == DeviceKind.CPU and not detail:
        found = cpu_device()
        return found, f"using {_describe(found)}, as asked"
    if kind == DeviceKind.VIRTUAL and spec != "virtual:":
        found = virtual_device(detail or DEFAULT_VIRTUAL)
        return found, f"using {_describe(found)}, as asked"
    raise SpecError(f"there is no device {spec!r}", hint=f"known: {KNOWN}")


def virtual_device(name: str) -> Device:
    """The simulated GPU of that name.

    Raises:
        SpecError: no such model.
    """
    spec: GpuSpec = gpu_spec(name)
    return Device(
        kind=DeviceKind.VIRTUAL,
        id=f"virtual:{spec.name}",
        name=spec.product,
        memory_bytes=spec.memory_bytes,
        index=0,
        sm_count=spec.sm_count,
        architecture=spec.architecture,
        mig_capable=spec.mig_capable,
    )


def _best() -> tuple[Device, str]:
    try:
        gpus = Nvml().list_gpus()
    except NvmlUnavailableError as error:
        reason = str(error)
    else:
        for candidate in gpus:
            if not candidate.processes:
                found = _device(candidate)
                return found, f"using {_describe(found)}: a GPU on which nobody computes"
        reason = "other processes compute on every GPU" if gpus else "the NVIDIA driver sees no GPU"
    found = virtual_device(DEFAULT_VIRTUAL)
    return found, f"using {_describe(found)}, because {reason}"


def _cuda(which: str | None) -> Device:
    hint = "use --device virtual (simulated) or --device cpu"
    try:
        gpus = Nvml().list_gpus()
    except NvmlUnavailableError as error:
        raise PreflightError(f"no GPU can be used: {error}", hint=hint) from None
    if not gpus:
        raise PreflightError("the NVIDIA driver sees no GPU", hint=hint)
    chosen = [g for g in gpus if which is None or which in (str(g.index), g.uuid)]
    if not chosen:
        known = ", ".join(f"{g.index} ({g.uuid})" for g in gpus)
        if which and which.isdigit():
            raise PreflightError(f"there is no GPU {which}", hint=f"this machine has {known}")
        raise SpecError(f"there is no GPU {which!r}", hint=f"this machine has {known}")
    free = [g for g in chosen if not g.processes]
    return _device((free or chosen)[0])


def _device(gpu: Gpu) -> Device:
    return Device(
        kind=DeviceKind.CUDA,
        id=gpu.uuid,
        name=gpu.name,
        memory_bytes=gpu.memory_bytes,
        index=gpu.index,
        sm_count=gpu.sm_count,
        architecture=gpu.architecture,
        driver=gpu.driver,
        mig_capable=gpu.mig_capable,
    )


def _describe(device: Device) -> str:
    memory = format_bytes(device.memory_bytes)
    if device.kind is DeviceKind.CPU:
        return f"the CPU ({device.name}, {len(device.cores)} cores, {memory})"
    if device.kind is DeviceKind.VIRTUAL:
        return f"a simulated GPU ({device.name}, {memory})"
    return f"GPU {device.index} ({device.name}, {memory})"
