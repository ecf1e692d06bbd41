"""The matrix written out: which cells, on which deployments, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import orjson

from fairshare.errors import InfeasibleError
from fairshare.records import FORMAT_VERSION, CellKey, Mode, TransportKind, fingerprint
from fairshare.runner.clocks import with_clocks
from fairshare.runner.feasibility import check_servers
from fairshare.runner.groups import Group, by_split, groups_of
from fairshare.runner.in_engine import with_scheduler
from fairshare.runner.in_process import made_in_process
from fairshare.runner.order import Arrangement, arrangement
from fairshare.runner.scheduling import OWN_ORDER, Scheduler
from fairshare.runner.settings import Settings
from fairshare.sharing.external import ExternalPartitioner
from fairshare.sharing.modes import partitioner_for
from fairshare.sharing.plan import Partitioner, PartitionPlan, TenantDemand
from fairshare.spec.choices import Order
from fairshare.spec.launcher import Engine, Launcher
from fairshare.spec.matrix import Matrix
from fairshare.spec.scenario import Scenario, Tenant
from fairshare.spec.workload import ClosedLoop


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """One cell to run: ``tenants`` are those that send requests in it.

    ``seed`` is of when requests come and how long they are; ``contents_seed`` of what they say.
    """

    key: CellKey
    id: str
    fingerprint: str
    scenario: Scenario
    base_dir: Path
    tenants: tuple[Tenant, ...]
    seed: int
    contents_seed: int
    definition: Mapping[str, Any]
    scheduler: Scheduler = OWN_ORDER


@dataclass(frozen=True, slots=True)
class Deployment:
    """Servers that are started once, and the cells that they then serve.

    ``launcher`` is the run's, with what a policy in the engine adds.
    """

    id: str
    plan: PartitionPlan
    launcher: Launcher
    cells: tuple[PlannedCell, ...]


@dataclass(frozen=True, slots=True)
class InfeasibleCell:
    """A cell that cannot exist here, and why."""

    cell: PlannedCell
    reason: str


@dataclass(frozen=True, slots=True)
class RunPlan:
    """All of it, in order: see :mod:`fairshare.runner.order`."""

    deployments: tuple[Deployment, ...]
    infeasible: tuple[InfeasibleCell, ...] = field(default=())

    @property
    def cells(self) -> list[PlannedCell]:
        """The cells that will run, in order."""
        return [cell for deployment in self.deployments for cell in deployment.cells]

    def without(self, ids: set[str]) -> RunPlan:
        """The plan less the cells whose ids are given; a deployment with none left is gone."""
        kept = (
            replace(d, cells=tuple(cell for cell in d.cells if cell.id not in ids))
            for d in self.deployments
        )
        infeasible = tuple(each for each in self.infeasible if each.cell.id not in ids)
        return RunPlan(tuple(d for d in kept if d.cells), infeasible)

    def without_modes(self, reasons: Mapping[Mode, str]) -> RunPlan:
        """The plan with all cells of the modes that are given infeasible, and why they are."""
        unready = [d for d in self.deployments if d.plan.mode in reasons]
        cells = (InfeasibleCell(c, reasons[d.plan.mode]) for d in unready for c in d.cells)
        kept = tuple(d for d in self.deployments if d not in unready)
        return RunPlan(kept, (*self.infeasible, *cells))


def make_plan(settings: Settings) -> RunPlan:
    """Write the matrix out; pure."""
    deployments: list[Deployment] = []
    infeasible: list[InfeasibleCell] = []
    partition = partial(_partition, settings)
    search = settings.matrix.search
    groups = [each for group in groups_of(settings) for each in by_split(group, search, partition)]
    for repetition in range(1, settings.matrix.rounds + 1):
        round_: list[Deployment] = []
        for group in groups:
            try:
                plan = _partition(settings, group)
                if settings.matrix.transport is TransportKind.IN_PROCESS:
                    plan = made_in_process(plan)
                launcher, plan = with_scheduler(
                    settings.launcher, plan, group.schedulers[0].in_server, group.tenants
                )
                check_servers(settings, launcher, plan)
            except InfeasibleError as error:
                reason = error.message + (f" ({error.hint})" if error.hint else "")
                cells = _cells(settings, group, repetition, None)
                infeasible += [InfeasibleCell(cell, reason) for cell in cells]
                continue
            cells = _cells(settings, group, repetition, plan)
            id_ = _deployment_id(launcher, plan)
            round_.append(Deployment(id_, plan, launcher, tuple(cells)))
        deployments += _arranged(_merge(round_), settings.matrix, repetition)
    if settings.matrix.order is Order.GROUPED:
        deployments = _merge(deployments)
    return RunPlan(tuple(deployments), tuple(infeasible))


def at(cell: PlannedCell, **load: Any) -> PlannedCell:
    """The same cell at another load or repetition: ``load`` are fields of its key."""
    key = replace(cell.key, **load)
    definition = {**cell.definition, "key": key.definition()}
    seed, contents_seed = _seeds(definition["seed"], key)
    return replace(
        cell,
        key=key,
        id=key.cell_id(definition),
        fingerprint=fingerprint(definition),
        seed=seed,
        contents_seed=contents_seed,
        definition=definition,
    )


def plain(definition: Mapping[str, Any]) -> dict[str, Any]:
    """A definition as plain JSON values, for ``config.resolved.yaml``."""
    loaded: dict[str, Any] = orjson.loads(orjson.dumps(definition))
    return loaded


def partitioner_of(settings: Settings, mode: Mode) -> Partitioner:
    """Who makes the shares of a mode on this run's device."""
    if settings.launcher.engine is Engine.EXTERNAL:
        return ExternalPartitioner(mode)
    return partitioner_for(mode, settings.device, settings.driver, settings.sharing)


def _partition(settings: Settings, group: Group) -> PartitionPlan:
    demands = [_demand(settings, tenant, group.base_dir) for tenant in group.tenants]
    plan = partitioner_of(settings, group.mode).plan(settings.device, demands)
    return with_clocks(plan, settings.matrix.lock_clocks)


def _demand(settings: Settings, tenant: Tenant, base_dir: Path) -> TenantDemand:
    adapter = tenant.adapter and str((base_dir / Path(tenant.adapter).expanduser()).resolve())
    return TenantDemand(tenant.name, settings.model_of(tenant), adapter, tenant.share)


def _cells(
    settings: Settings, group: Group, repetition: int, plan: PartitionPlan | None
) -> list[PlannedCell]:
    sets = (
        [(tenant.name, [tenant]) for tenant in group.tenants]
        if group.mode is Mode.EXCLUSIVE
        else [(None, group.tenants)]
    )
    cells = []
    for load_scale in _load_scales(settings, group.scenario):
        for concurrency in _concurrencies(settings, group.scenario):
            for (alone, tenants), scheduler in product(sets, group.schedulers):
                key = CellKey(
                    scenario=group.scenario.name,
                    mode=group.mode,
                    concurrency=concurrency,
                    repetition=repetition,
                    policy=scheduler.policy.label,
                    tenant=alone,
                    load_scale=load_scale,
                    scheduling=scheduler.place,
                    shares=group.shares,
                )
                cells.append(_cell(settings, group, key, tenants, plan=plan, scheduler=scheduler))
    return cells


def _cell(
    settings: Settings,
    group: Group,
    key: CellKey,
    tenants: Sequence[Tenant],
    *,
    plan: PartitionPlan | None,
    scheduler: Scheduler,
) -> PlannedCell:
    definition = {
        "format_version": FORMAT_VERSION,
        "key": key.definition(),
        "scenario": group.scenario.model_dump(mode="json", exclude={"tenants"}),
        "tenants": [tenant.model_dump(mode="json") for tenant in tenants],
        "all_tenants": [tenant.model_dump(mode="json") for tenant in group.scenario.tenants],
        "launcher": settings.launcher.model_dump(mode="json", exclude={"python"}),
        "engine_version": settings.engine_version,
        "models": {
            name: facts.fingerprint or facts.served_name for name, facts in settings.models.items()
        },
        "device": {"kind": settings.device.kind, "name": settings.device.name},
        "plan": None if plan is None else _shape(plan, key),
        "seed": settings.seed_of(group.scenario),
        **({"files": digests} if (digests := settings.digests.get(group.scenario.name)) else {}),
        "client": {
            "transport": settings.matrix.transport,
            "load_processes": settings.matrix.load_processes,
        },
        **scheduler.definition(settings.window_of(scheduler)),
    }
    seed, contents_seed = _seeds(settings.seed_of(group.scenario), key)
    return PlannedCell(
        key=key,
        id=key.cell_id(definition),
        fingerprint=fingerprint(definition),
        scenario=group.scenario,
        base_dir=group.base_dir,
        tenants=tuple(tenants),
        seed=seed,
        contents_seed=contents_seed,
        definition=definition,
        scheduler=scheduler,
    )


def _seeds(seed: int, key: CellKey) -> tuple[int, int]:
    """Of when requests come and how long they are, and of what they say.

    The seed leaves the mode out: prompts differ between cells, but not between modes.
    """
    paired = [seed, key.scenario, key.concurrency, key.repetition, key.load_scale]
    # Cells of several policies share servers, and one's prompts must not be in the other's cache.
    apart = [*paired, key.policy, key.scheduling] if key.scheduling is not None else paired
    return _seed(paired), _seed(apart)


def _seed(of: Sequence[Any]) -> int:
    return int(fingerprint(of)[:15], 16)


def _shape(plan: PartitionPlan, key: CellKey) -> dict[str, Any]:
    """What of a plan defines a cell: each server's share, not whom else it could serve."""
    slots = [{**_slot_shape(plan, i), "tenants": slot.tenants} for i, slot in enumerate(plan.slots)]
    if key.tenant is not None:
        slots = [{**slot, "tenants": [key.tenant]} for slot in slots]
    return {"label": plan.label, "slots": slots, **plan.details}


def _slot_shape(plan: PartitionPlan, index: int) -> dict[str, Any]:
    slot = plan.slots[index]
    return {
        "name": slot.name,
        "model": slot.model,
        "adapters": dict(slot.adapters),
        "compute_fraction": slot.compute_fraction,
        "memory_fraction": slot.memory_fraction,
        "memory_bytes": slot.memory_bytes,
        "cpu_set": slot.cpu_set,
        "threads": slot.threads,
        # Two profiles may grant the same SMs and GiB and differ in their engines.
        **({"mig_profile": slot.mig_profile} if slot.mig_profile else {}),
    }


def _deployment_id(launcher: Launcher, plan: PartitionPlan) -> str:
    """Equal for plans whose servers are the same, whatever their tenants are called."""
    shape = {
        "mode": plan.mode,
        "label": plan.label,
        **plan.details,
        "slots": [_slot_shape(plan, i) for i in range(len(plan.slots))],
        "launcher": launcher.model_dump(mode="json"),
    }
    return f"{plan.label}-{fingerprint(shape)[:8]}"


def _merge(deployments: Sequence[Deployment]) -> list[Deployment]:
    """Cells of equal deployments together, so that their servers are started once."""
    merged: dict[str, Deployment] = {}
    for deployment in deployments:
        if (known := merged.get(deployment.id)) is None:
            merged[deployment.id] = deployment
            continue
        slots = tuple(
            replace(a, tenants=tuple(dict.fromkeys((*a.tenants, *b.tenants))))
            for a, b in zip(known.plan.slots, deployment.plan.slots, strict=True)
        )
        merged[deployment.id] = replace(
            known,
            plan=replace(known.plan, slots=slots),
            cells=(*known.cells, *deployment.cells),
        )
    return list(merged.values())


def _arranged(round_: Sequence[Deployment], matrix: Matrix, repetition: int) -> list[Deployment]:
    of_deployments: Arrangement[Deployment] = arrangement(
        matrix.order, matrix.order_seed, repetition
    )
    of_cells: Arrangement[PlannedCell] = arrangement(matrix.order, matrix.order_seed, repetition)
    return [replace(each, cells=tuple(of_cells(each.cells))) for each in of_deployments(round_)]


def _concurrencies(settings: Settings, scenario: Scenario) -> Sequence[int | None]:
    """The concurrencies to run: one cell, if no tenant would notice the difference."""
    steered = any(
        isinstance(t.arrival, ClosedLoop) and t.arrival.concurrency is None
        for t in scenario.tenants
    )
    if not steered:
        return [None]
    return settings.matrix.concurrency or [1]


def _load_scales(settings: Settings, scenario: Scenario) -> Sequence[float]:
    open_loop = any(not isinstance(t.arrival, ClosedLoop) for t in scenario.tenants)
    return settings.matrix.load_scale if open_loop else [1.0]
