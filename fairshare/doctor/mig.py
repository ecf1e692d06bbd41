"""MIG: whether real instances can be made, and whether the GPU is whole for the other modes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass

from fairshare.devices.constants import spec_of_product
from fairshare.doctor.finding import Finding, fail, ok, warn
from fairshare.doctor.gpu import GpuFacts
from fairshare.doctor.intent import Intent
from fairshare.errors import InfeasibleError, PartitionError
from fairshare.records import Mode
from fairshare.sharing.emulated import EmulatedMig
from fairshare.sharing.mig_choice import mig_partitioner
from fairshare.sharing.mig_state import DISABLED, ENABLED
from fairshare.sharing.nvidia_smi import GpuInstance, NvidiaSmi

# The first driver with MIG on each model: MIG user guide, "Deployment considerations".
_FIRST_DRIVERS = {
    r"A100|A30\b": (450, 80, 2),
    r"H200": (550, 90, 7),
    r"GB200|B200": (570, 133, 20),
    r"GB300|B300": (580, 82, 7),
    r"RTX PRO 6000": (575, 51, 3),
    r"H100|GH200": (525, 85, 12),
}


@dataclass(frozen=True, slots=True)
class MigFacts:
    """What is there, and what mode ``mig`` will be.

    ``real``: instances will be made; else ``why`` says what is done instead and why, or, where
    that leaves nothing, what is ``refused`` (with the remedy). ``unread`` says why the instances
    that exist cannot be listed, None where they could be or there is no MIG.
    """

    real: bool = False
    why: str = ""
    refused: tuple[str, str] | None = None
    instances: tuple[GpuInstance, ...] = ()
    unread: str | None = None


def gather(intent: Intent) -> MigFacts:
    """List the instances, and choose between real and emulated MIG as a run does."""
    if intent.device is None:
        return MigFacts()
    instances, unread = _instances(intent)
    try:
        chosen = mig_partitioner(intent.device, intent.driver, intent.sharing)
    except InfeasibleError as error:
        refused = (error.message, error.hint or "--mig auto emulates what cannot be had")
        return MigFacts(refused=refused, instances=instances, unread=unread)
    why = chosen.why if isinstance(chosen, EmulatedMig) else ""
    return MigFacts(not why, why, instances=instances, unread=unread)


def switches_by_reset(facts: MigFacts, gpu: GpuFacts, intent: Intent) -> bool:
    """Whether MIG mode is about to be switched on a GPU that resets for it (Ampere)."""
    spec = None if gpu.gpu is None else spec_of_product(gpu.gpu.name)
    off = gpu.condition.mig is not None and gpu.condition.mig[0] == DISABLED
    wanted = Mode.MIG in intent.modes and facts.real
    return wanted and off and spec is not None and spec.mig_toggle_needs_reset


def check(facts: MigFacts, gpu: GpuFacts, intent: Intent) -> Iterator[Finding]:
    """What MIG's facts mean for the run."""
    if gpu.gpu is None:
        return
    if gpu.condition.mig is not None:
        yield _check_mode(facts, gpu.condition.mig, intent)
        yield from _check_instances(facts, intent)
    if Mode.MIG not in intent.modes:
        return
    if facts.refused is not None:
        yield fail("mig", *facts.refused)
    elif not facts.real:
        yield ok("mig", f"emulated. {facts.why}")
    else:
        yield ok("mig", "real instances will be made")
        yield _check_driver(gpu)


def _check_mode(facts: MigFacts, mode: tuple[str, str], intent: Intent) -> Finding:
    (current, pending), name = mode, "mig mode"
    whole = sorted(each.value for each in intent.modes - {Mode.MIG})
    if current != pending:
        says = f"{current}, and {pending} after the next reset: neither can be relied upon"
        return fail(name, says, f"{intent.smi} -mig {int(current == ENABLED)}")
    if current == ENABLED and whole:
        says = f"on, but the whole GPU is needed for: {', '.join(whole)}"
        return fail(name, says, f"{intent.smi} -mig 0, or --modes mig")
    if current == ENABLED and Mode.MIG in intent.modes and not facts.real:
        says = "on, and emulated instances need the whole GPU"
        return fail(name, says, f"{intent.smi} -mig 0, or --allow-gpu-changes")
    return ok(name, "on" if current == ENABLED else "off")


def _check_instances(facts: MigFacts, intent: Intent) -> Iterator[Finding]:
    name = "mig instances"
    if facts.unread is not None and facts.real and Mode.MIG in intent.modes:
        yield fail(name, facts.unread, f"{intent.mig_smi} -lgi shows why")
    elif facts.instances:
        said = ", ".join(f"{each.profile} (id {each.id})" for each in facts.instances)
        destroy = f"{intent.mig_smi} -dci && {intent.mig_smi} -dgi"
        says = f"there are some already, which stay and take room: {said}"
        yield warn(name, says, f"if nobody needs them: {destroy}")


def _check_driver(gpu: GpuFacts) -> Finding:
    name, product = "mig driver", "" if gpu.gpu is None else gpu.gpu.name
    installed = ("" if gpu.gpu is None else gpu.gpu.driver) or ""
    for pattern, first in _FIRST_DRIVERS.items():
        if re.search(pattern, product):
            needed = f"{first[0]}.{first[1]}.{first[2]:02}"
            if installed and _version(installed) < first:
                says = f"driver {installed} has no MIG on {product}"
                return fail(name, says, f"install driver {needed} or newer")
            return ok(name, f"new enough: MIG on {product} since {needed}")
    return ok(name, f"the first driver with MIG on {product} is not known here")


def _instances(intent: Intent) -> tuple[tuple[GpuInstance, ...], str | None]:
    if intent.device is None or not intent.device.mig_capable:
        return (), None
    smi = NvidiaSmi(intent.gpu_name, intent.driver.env)
    try:
        return tuple(asyncio.run(smi.gpu_instances())), None
    except PartitionError as error:
        return (), error.message


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))
