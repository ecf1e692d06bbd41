"""What the doctor must know of a run, and the refusal of one that cannot go well."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from fairshare.devices import inventory
from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.doctor.bounded import bounded
from fairshare.doctor.examine import examine
from fairshare.doctor.finding import Finding, Level, failures
from fairshare.doctor.intent import Intent
from fairshare.errors import PreflightError
from fairshare.records import Mode
from fairshare.runner.plan import RunPlan
from fairshare.runner.settings import (
    DEFAULT_MODEL,
    EXTERNAL_DEVICE,
    Flags,
    Settings,
    launcher_for,
    sharing_of,
)
from fairshare.sharing.options import SharingOptions
from fairshare.spec.launcher import DeviceKind, Engine
from fairshare.spec.loading import load_launcher
from fairshare.spec.matrix import Matrix
from fairshare.virtual.driver import driver_for

_DETECT_S = 15.0


def _intent(settings: Settings, modes: Collection[Mode], folder: Path) -> Intent:
    """What is about to be run in these modes, with results in ``folder``."""
    return Intent(
        kind=settings.device.kind,
        modes=frozenset(modes),
        launcher=settings.launcher,
        folder=folder,
        device=settings.device,
        driver=settings.driver,
        sharing=settings.sharing,
        allow_foreign=settings.allow_foreign,
    )


def intent_of_flags(matrix: Matrix, flags: Flags, folder: Path) -> tuple[Intent, str]:
    """What would be run with these flags, and which device that takes and why.

    A device that is not there is no error here, but what the doctor has to tell.

    Raises:
        SpecError: a flag is wrong, or does not fit another.
    """
    modes = frozenset(matrix.modes)
    named = load_launcher(flags.launcher)[0] if flags.launcher else None
    if named is not None and named.engine is Engine.EXTERNAL:
        device, reason = EXTERNAL_DEVICE, "the launcher measures servers that somebody else runs"
        return Intent(device.kind, modes, named, folder, device), reason
    asked = flags.device
    if asked is None and named is not None and DeviceKind.CUDA not in named.devices:
        asked = named.devices[0].value if named.devices else None
    missing: PreflightError | None = None
    found: Device | None = None
    try:
        detect = partial(inventory.detect, asked, gpu=flags.gpu)
        found, reason = bounded(detect, "the NVIDIA driver", _DETECT_S)
    except PreflightError as error:
        missing, reason = error, "using a GPU, as asked"
    kind = DeviceKind.CUDA if found is None else found.kind
    driver = Driver() if found is None else driver_for(found)
    sharing = SharingOptions() if found is None else sharing_of(matrix, flags, found, driver)
    intent = Intent(
        kind=kind,
        modes=modes,
        launcher=launcher_for(kind, named, flags),
        folder=folder,
        device=found,
        missing=missing.message if missing else "",
        remedy=(missing.hint or "") if missing else "",
        model=flags.model or DEFAULT_MODEL.get(kind),
        driver=driver,
        sharing=sharing,
        allow_foreign=flags.allow_foreign,
    )
    return intent, reason


def require_fit(settings: Settings, plan: RunPlan, folder: Path) -> list[Finding]:
    """Make sure that nothing stands against what will be deployed; return every finding.

    Raises:
        PreflightError: something does: what, and the command that mends it.
    """
    modes = {deployment.plan.mode for deployment in plan.deployments}
    findings = examine(_intent(settings, modes, folder))
    if against := failures(findings):
        raise refusal(against)
    return findings


def unready_modes(settings: Settings, plan: RunPlan, folder: Path) -> dict[Mode, str]:
    """The plan's modes that cannot go well while others can, and what stands against each."""
    modes = {deployment.plan.mode for deployment in plan.deployments}
    if not failures(examine(_intent(settings, modes, folder))):
        return {}
    reasons = {}
    for mode in modes:
        if against := failures(examine(_intent(settings, {mode}, folder))):
            reasons[mode] = "; ".join(f"{each.name}: {each.says} ({each.fix})" for each in against)
    return reasons if reasons.keys() < modes else {}


def reservations(findings: Sequence[Finding]) -> list[Finding]:
    """Those that do not stand against the run, but that its results should carry."""
    return [finding for finding in findings if finding.level is Level.WARN]


def refusal(against: Sequence[Finding]) -> PreflightError:
    """The error that tells all reasons not to start."""
    first, *others = against
    return PreflightError(
        f"this machine is not ready: {first.name}: {first.says}",
        evidence=[f"{other.name}: {other.says} -> {other.fix}" for other in others],
        hint=first.fix,
    )
