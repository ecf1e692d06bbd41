"""Who runs a sweep: the agents whose devices are alike, and the plan that all of them come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from fairshare import __version__
from fairshare.cluster.inputs import inputs_of, kind_asked
from fairshare.cluster.messages import Failed, Inputs, Job, LostError, Surveyed, packed
from fairshare.cluster.ray_cluster import RayAgent, agents, kind_of_cluster
from fairshare.devices.device import Device
from fairshare.errors import PreflightError
from fairshare.results import layout
from fairshare.runner.changes import changes, told
from fairshare.runner.plan import RunPlan, plain
from fairshare.runner.settings import Flags, Settings
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.matrix import Matrix
from fairshare.units import format_bytes

_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Member:
    """An agent that takes part: what it is told, and what its machine is."""

    agent: RayAgent
    inputs: Inputs
    surveyed: Surveyed


@dataclass(frozen=True, slots=True)
class Roster:
    """Those who take part, all with like devices; ``left_out`` says why others do not."""

    members: tuple[Member, ...]
    settings: Settings
    plan: RunPlan
    left_out: Mapping[str, str]


def muster(matrix: Matrix, flags: Flags, directory: Path | None) -> Roster:
    """Ask every device of the cluster what the sweep comes to there, and choose those alike.

    These are the most that are alike, or, where ``directory`` holds results already, those like
    the device that was measured there.

    Raises:
        SpecError: what was asked for is wrong, or cannot be spread.
        PreflightError: no device of the cluster can take part; says why not.
    """
    kind = kind_asked(matrix, flags) or kind_of_cluster()
    inputs = inputs_of(matrix, flags, kind)
    left_out: dict[str, str] = {}
    members = _survey(inputs, kind, (directory or Path("results")).absolute(), left_out)
    if not members:
        raise PreflightError(
            "no device of the Ray cluster can take part",
            evidence=[f"{name}: {reason}" for name, reason in left_out.items()],
            hint="fairshare doctor, run on such a machine, says more",
        )
    return group(members, left_out, _measured_on(directory))


def _survey(
    inputs: Inputs, kind: DeviceKind, results: Path, left_out: dict[str, str]
) -> list[Member]:
    """All that can take part; of the others it is noted why they cannot."""
    found, absent = agents(kind)
    left_out |= absent
    begun = []
    for agent, greeting in found:
        if greeting.version != __version__:
            left_out[agent.name] = f"it has fairshare {greeting.version}, this is {__version__}"
            agent.dismiss()
            continue
        own = _inputs_for(agent, inputs, kind)
        begun.append((agent, own, agent.survey(packed(Job(own, results)))))
    members = []
    for agent, own, answers in begun:
        surveyed = _surveyed(answers)
        if isinstance(surveyed, Surveyed):
            members.append(Member(agent, own, surveyed))
        else:
            left_out[agent.name] = surveyed
            agent.dismiss()
    return members


def _inputs_for(agent: RayAgent, inputs: Inputs, kind: DeviceKind) -> Inputs:
    asked = inputs.flags.device or inputs.matrix.device or kind.value
    return replace(inputs, flags=replace(inputs.flags, device=asked, gpu=agent.gpu))


def _surveyed(answers: Any) -> Surveyed | str:
    """What a node came to, or why it came to nothing."""
    found: Surveyed | str = "our process there ended without a word"
    try:
        for message in answers:  # to the end: then our process there is gone
            if isinstance(message, Surveyed):
                found = message
            elif isinstance(message, Failed):
                found = "; ".join([message.message, *message.evidence])
    except LostError as error:
        return str(error)
    return found


def group(members: Sequence[Member], left_out: dict[str, str], like: Device | None) -> Roster:
    """Those of the members whose devices are alike; of the others it is noted why they are not.

    Raises:
        PreflightError: none is like the device ``like``.
    """
    groups: dict[tuple[Any, ...], list[Member]] = {}
    for member in members:
        groups.setdefault(_likeness(member.surveyed), []).append(member)
    if like is not None:
        fitting = [g for g in groups.values() if _same(g[0].surveyed.settings.device, like)]
        if not fitting:
            raise PreflightError(
                f"the results there are of {_described(like)}, and the cluster has none like it",
                evidence=[f"{m.agent.name}: {_described(_device(m))}" for m in members],
                hint="choose another --output-dir",
            )
        chosen = max(fitting, key=len)
    else:
        chosen = max(groups.values(), key=len)
    for member in members:
        if member not in chosen:
            left_out[member.agent.name] = _difference(member.surveyed, chosen[0].surveyed)
            member.agent.dismiss()
    names = ", ".join(member.agent.name for member in chosen)
    first = chosen[0].surveyed
    many = f"{len(chosen)} x " if len(chosen) > 1 else ""
    reason = f"using {many}{_described(first.settings.device)} through Ray: {names}"
    settings, plan = _at_home(replace(first.settings, device_reason=reason), first.plan, chosen[0])
    return Roster(tuple(chosen), settings, plan, left_out)


def _at_home(settings: Settings, plan: RunPlan, member: Member) -> tuple[Settings, RunPlan]:
    """Settings and plan of a node with the folders of scenarios as they are here."""
    folders = member.inputs.folders
    scenarios = tuple(
        (scenario, folders[scenario.name] / path.name) for scenario, path in settings.scenarios
    )
    deployments = tuple(
        replace(d, cells=tuple(replace(c, base_dir=folders[c.scenario.name]) for c in d.cells))
        for d in plan.deployments
    )
    return replace(settings, scenarios=scenarios), replace(plan, deployments=deployments)


def _likeness(surveyed: Surveyed) -> tuple[Any, ...]:
    """Equal for devices whose figures may stand beside each other."""
    plan, settings = surveyed.plan, surveyed.settings
    cells = [*plan.cells, *(each.cell for each in plan.infeasible)]
    return (*_traits(settings.device), settings.engine_version, *(cell.id for cell in cells))


def _traits(device: Device) -> tuple[Any, ...]:
    memory = device.memory_bytes
    if device.kind is DeviceKind.CPU:
        memory = round(memory / _GIB)  # kernels keep a little for themselves
    cores = len(device.cores)
    return (device.kind, device.name, memory, device.sm_count, device.driver, cores)


def _same(one: Device, other: Device) -> bool:
    return _traits(one) == _traits(other)


def _difference(surveyed: Surveyed, chosen: Surveyed) -> str:
    device, others = surveyed.settings.device, chosen.settings.device
    if not _same(device, others):
        return f"it has {_described(device)}, the others {_described(others)}"
    if surveyed.settings.engine_version != chosen.settings.engine_version:
        here, there = surveyed.settings.engine_version, chosen.settings.engine_version
        return f"its engine is of version {here}, the others' of {there}"
    known = {cell.key: plain(cell.definition) for cell in chosen.plan.cells}
    pairs = [(known[c.key], plain(c.definition)) for c in surveyed.plan.cells if c.key in known]
    differences = told(changes(theirs, own) for theirs, own in pairs)
    return "; ".join(["the same cells are others there", *differences[:3]])


def _device(member: Member) -> Device:
    return member.surveyed.settings.device


def _described(device: Device) -> str:
    more = [format_bytes(device.memory_bytes)]
    more += [f"driver {device.driver}"] if device.driver else []
    simulated = "simulated " if device.kind is DeviceKind.VIRTUAL else ""
    return f"{simulated}{device.name} ({', '.join(more)})"


def _measured_on(directory: Path | None) -> Device | None:
    """The device of a result folder that is gone on with; what is wrong with it is told later."""
    try:
        kept = orjson.loads((Path(directory or "") / layout.MATRIX).read_bytes())["device"]
        return Device(**{**kept, "kind": DeviceKind(kept["kind"]), "cores": tuple(kept["cores"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
