"""MIG: whether real instances can be made, and whether the GPU is whole for the other modes."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fairshare.devices.constants import spec_of_product
from fairshare.doctor.finding import Finding, fail, ok, warn
from fairshare.doctor.gpu import GpuFacts
from fairshare.doctor.intent import Intent
from fairshare.errors import PartitionError
from fairshare.records import Mode
from fairshare.sharing.mig_state import DISABLED, ENABLED
from fairshare.sharing.nvidia_smi import GpuInstance, NvidiaSmi
from fairshare.spec.launcher import DeviceKind

_CONFIG = Path("/proc/driver/nvidia/capabilities/mig/config")
_SUDO_S = 5.0
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
    """What is there, and what may be changed.

    ``rights`` is what lets us change MIG, None if nothing does; ``unread`` says why the instances
    cannot be listed, None where they could be or are of no interest.
    """

    rights: str | None = None
    instances: tuple[GpuInstance, ...] = ()
    unread: str | None = None


def gather(intent: Intent) -> MigFacts:
    """See whose rights we have; list instances where MIG mode may be on."""
    if intent.device is None or not intent.device.mig_capable:
        return MigFacts()
    smi = NvidiaSmi(intent.gpu_name, intent.driver.env)
    rights = _rights(intent)
    try:
        return MigFacts(rights, tuple(asyncio.run(smi.gpu_instances())))
    except PartitionError as error:
        return MigFacts(rights, unread=error.message)


def is_real(intent: Intent) -> bool:
    """Whether instances will be made, rather than emulated."""
    capable = intent.device is not None and intent.device.mig_capable
    allowed = intent.sharing.allow_gpu_changes or intent.kind is DeviceKind.VIRTUAL
    return Mode.MIG in intent.modes and capable and allowed


def switches_by_reset(facts: GpuFacts, intent: Intent) -> bool:
    """Whether MIG mode is about to be switched on a GPU that resets for it (Ampere)."""
    spec = None if facts.gpu is None else spec_of_product(facts.gpu.name)
    off = facts.condition.mig is not None and facts.condition.mig[0] == DISABLED
    return is_real(intent) and off and spec is not None and spec.mig_toggle_needs_reset


def check(facts: MigFacts, gpu: GpuFacts, intent: Intent) -> Iterator[Finding]:
    """What MIG's facts mean for the run."""
    if gpu.gpu is None:
        return
    if gpu.condition.mig is None:
        if Mode.MIG in intent.modes:
            yield ok("mig", f"{gpu.gpu.name} has no MIG: instances can only be emulated")
        return
    current, pending = gpu.condition.mig
    switch = f"{intent.smi} -mig"
    if current != pending:
        says = f"mode is {current}, and {pending} after the next reset: neither can be relied upon"
        yield fail("mig mode", says, f"{switch} {int(current == ENABLED)}")
    else:
        yield from _check_whole(current, intent, f"{switch} 0")
    yield from _check_instances(facts, intent)
    if is_real(intent):
        yield _check_driver(gpu)
        yield _check_rights(facts)
    elif Mode.MIG in intent.modes:
        yield ok("mig", "instances are emulated; --allow-gpu-changes makes real ones")


def _check_whole(current: str, intent: Intent, mend: str) -> Iterator[Finding]:
    whole = sorted(mode.value for mode in intent.modes - {Mode.MIG})
    if current == ENABLED and whole:
        says = f"mode is on, and {', '.join(whole)} need the whole GPU"
        yield fail("mig mode", says, f"{mend}, or --modes mig")
    elif current == ENABLED and not is_real(intent):
        says = "mode is on, and emulated instances need the whole GPU"
        yield fail("mig mode", says, f"{mend}, or --allow-gpu-changes")
    else:
        yield ok("mig mode", "on" if current == ENABLED else "off")


def _check_instances(facts: MigFacts, intent: Intent) -> Iterator[Finding]:
    if facts.unread is not None:
        if is_real(intent):
            yield fail(
                "mig instances",
                facts.unread,
                f"{intent.mig_smi} -lgi shows why",
            )
    elif facts.instances:
        said = ", ".join(f"{i.profile} (id {i.id})" for i in facts.instances)
        says = f"there are some already, which stay: {said}"
        # Which exact instance is in use is known to its owner alone.
        yield warn("mig instances", says, f"if nobody needs them: {_destroy(intent)}")


def _destroy(intent: Intent) -> str:
    return f"{intent.mig_smi} -dci && {intent.mig_smi} -dgi"


def _check_driver(gpu: GpuFacts) -> Finding:
    name, product = "mig driver", "" if gpu.gpu is None else gpu.gpu.name
    installed = _version((gpu.gpu and gpu.gpu.driver) or "")
    for pattern, first in _FIRST_DRIVERS.items():
        if re.search(pattern, product):
            needed = f"{first[0]}.{first[1]}.{first[2]:02}"
            if installed and installed < first:
                says = f"driver {gpu.gpu and gpu.gpu.driver} has no MIG on {product}"
                return fail(name, says, f"install driver {needed} or newer")
            return ok(name, f"new enough (MIG on {product} since {needed})")
    return ok(name, f"the first driver with MIG on {product} is not known here")


def _check_rights(facts: MigFacts) -> Finding:
    if facts.rights is not None:
        return ok("mig rights", facts.rights)
    says = f"neither root, nor sudo without a password, nor is {_CONFIG} readable"
    return fail("mig rights", says, "run fairshare with sudo, or leave out --allow-gpu-changes")


def _rights(intent: Intent) -> str | None:
    if intent.kind is DeviceKind.VIRTUAL:
        return "a simulated GPU may be changed by its owner"
    if os.geteuid() == 0:
        return "root"
    if _sudo_works():
        return "sudo works without a password"
    return f"{_CONFIG} is readable (instances only)" if os.access(_CONFIG, os.R_OK) else None


def _sudo_works() -> bool:
    if shutil.which("sudo") is None:
        return False
    try:
        asked = subprocess.run(
            ["sudo", "-n", "-l", "nvidia-smi"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SUDO_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))
