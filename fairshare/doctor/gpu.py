"""The GPU and its driver: found, free, set as a measurement needs it, as fast as it can be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fairshare.devices.nvml import Gpu, GpuCondition, GpuProcess, NvmlUnavailableError
from fairshare.doctor.finding import Finding, fail, ok, warn
from fairshare.doctor.intent import Intent
from fairshare.errors import PartitionError
from fairshare.processes.labelled import RUN_LABEL, environment_of
from fairshare.processes.table import read_row
from fairshare.records import Mode
from fairshare.sharing.tools import ToolMissingError, run_tool, tool_env
from fairshare.spec.launcher import DeviceKind
from fairshare.units import format_bytes

_TOOL_S = 10.0
_MIB = 1024**2
_IDLE_BYTES = 1024 * _MIB  # a driver, a display and its desktop stay below
_INSTALL = "install it: it comes with the NVIDIA driver"
_TELLS_WHY = "sudo dmesg | grep -i -e nvrm -e nvidia shows why"
_INSTEAD = "use --device virtual (simulated) or --device cpu"
# Modes that give each tenant a server on the GPU itself, without a daemon between.
_SIDE_BY_SIDE = frozenset({Mode.TIMESLICE})


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """``smi`` is why ``nvidia-smi`` cannot be used and ``nvml`` why NVML cannot, None if they can.

    ``names`` are of the GPU's processes, ``ours`` those of them that carry fairshare's label.
    """

    nvml: str | None = None
    smi: str | None = None
    smi_found: bool = True
    gpu: Gpu | None = None
    condition: GpuCondition = field(default_factory=GpuCondition)
    names: Mapping[int, str] = field(default_factory=dict)
    ours: frozenset[int] = frozenset()


def gather(intent: Intent) -> GpuFacts:
    """Ask NVML and ``nvidia-smi``."""
    smi, found = _ask_smi(intent)
    if intent.device is None:
        return GpuFacts(nvml=intent.missing, smi=smi, smi_found=found)
    try:
        gpus = intent.driver.nvml.list_gpus()
        gpu = next((gpu for gpu in gpus if gpu.uuid == intent.device.id), None)
        if intent.kind is DeviceKind.VIRTUAL and gpus:
            gpu = gpus[0]
        if gpu is None:
            unknown = f"NVML does not know the GPU {intent.device.id}"
            return GpuFacts(nvml=unknown, smi=smi, smi_found=found)
        condition = intent.driver.nvml.condition(gpu.uuid)
    except NvmlUnavailableError as error:
        return GpuFacts(nvml=str(error), smi=smi, smi_found=found)
    pids = [process.pid for process in gpu.processes]
    rows = {pid: read_row(pid) for pid in pids}
    return GpuFacts(
        smi=smi,
        smi_found=found,
        gpu=gpu,
        condition=condition,
        names={pid: row.name for pid, row in rows.items() if row is not None},
        ours=frozenset(pid for pid in pids if RUN_LABEL in environment_of(pid)),
    )


def check(facts: GpuFacts, intent: Intent) -> Iterator[Finding]:
    """What the GPU's facts mean for the run."""
    if facts.smi is None:
        yield ok("nvidia-smi", "found, and answers")
    else:
        level = fail if _needs_smi(intent) else warn
        yield level("nvidia-smi", facts.smi, _TELLS_WHY if facts.smi_found else _INSTALL)
    if facts.gpu is None:
        why = facts.nvml or "NVML shows no GPU"
        yield fail("gpu", why, intent.remedy or _INSTEAD)
        return
    gpu = facts.gpu
    driver = f"driver {gpu.driver or 'unknown'}"
    yield ok("gpu", f"{gpu.name}, {format_bytes(gpu.memory_bytes)}, {driver}")
    yield from _check_processes(facts, intent)
    yield from _check_mode(facts.condition, intent)
    yield from _check_settings(facts.condition, intent)


def _check_processes(facts: GpuFacts, intent: Intent) -> Iterator[Finding]:
    processes = facts.gpu.processes if facts.gpu else ()
    if not processes:
        used = facts.condition.used_bytes or 0
        if used > _IDLE_BYTES:
            says = f"{format_bytes(used)} are in use by processes that cannot be seen from here"
            yield warn("gpu processes", says, f"look from the host: {intent.smi}")
        else:
            yield ok("gpu processes", "nobody computes on it")
        return
    said = ", ".join(_told(process, facts.names) for process in processes)
    if all(process.pid in facts.ours for process in processes):
        says, mend = f"servers of a fairshare run compute on it: {said}", "fairshare clean"
        mend += ", if that run is dead; else wait for it"
    else:
        says = f"others compute on it: {said}"
        mend = "stop them, choose another with --gpu, or accept them with --allow-foreign"
    if intent.allow_foreign:
        yield warn("gpu processes", f"{says} (accepted: figures will be marked)", mend)
    else:
        yield fail("gpu processes", says, mend)


def _check_mode(condition: GpuCondition, intent: Intent) -> Iterator[Finding]:
    mode, name = condition.compute_mode, "compute mode"
    if mode is None:
        return
    mend = f"{intent.smi} -c DEFAULT"
    if mode == "Prohibited":
        yield fail(name, "Prohibited: nobody may compute on the GPU", mend)
    elif mode.startswith("Exclusive") and intent.modes & _SIDE_BY_SIDE:
        says = f"{mode}: one process alone may use the GPU, and timeslice has one per tenant"
        yield fail(name, says, mend)
    elif mode.startswith("Exclusive"):
        yield warn(name, f"{mode}: an engine of several processes cannot start", mend)
    else:
        yield ok(name, mode)


def _check_settings(condition: GpuCondition, intent: Intent) -> Iterator[Finding]:
    if condition.persistent is False:
        says = "off: the driver may unload between servers, and starts take longer"
        yield warn("persistence", says, f"{intent.smi} -pm 1")
    elif condition.persistent:
        yield ok("persistence", "on")
    if condition.slowdowns:
        says = f"{'; '.join(condition.slowdowns)}: figures would be too low"
        yield warn("clocks", says, f"{intent.smi} -q -d PERFORMANCE tells more")


def _needs_smi(intent: Intent) -> bool:
    """Whether MIG instances will be looked for or made."""
    may_be_real = intent.sharing.allow_gpu_changes or intent.kind is DeviceKind.VIRTUAL
    return Mode.MIG in intent.modes and may_be_real


def _told(process: GpuProcess, names: Mapping[int, str]) -> str:
    memory = "" if process.memory_bytes is None else f", {format_bytes(process.memory_bytes)}"
    return f"pid {process.pid} ({names.get(process.pid, 'not visible here')}{memory})"


def _ask_smi(intent: Intent) -> tuple[str | None, bool]:
    """Why ``nvidia-smi`` is of no use (None if it is), and whether it is there at all."""
    env = tool_env(intent.driver.env)
    try:
        answer = asyncio.run(run_tool(["nvidia-smi", "-L"], env, timeout_s=_TOOL_S))
    except ToolMissingError as error:
        return error.message, False
    except PartitionError as error:
        return error.message, True
    if answer.returncode == 0:
        return None, True
    last = "".join(f": {line}" for line in answer.lines[-1:])
    return f"nvidia-smi fails (exit code {answer.returncode}){last}", True
