"""A matrix in virtual time: the same plan, requests and result files, and no server is started."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fairshare.devices.constants import gpu_spec
from fairshare.errors import SpecError
from fairshare.records import CellResult, CellStatus, Mark, RequestRecord
from fairshare.results.provenance import gather
from fairshare.results.store import ResultStore, StoredCell
from fairshare.runner.account import Account
from fairshare.runner.cell import blank_result
from fairshare.runner.in_engine import terms_of
from fairshare.runner.loads import concurrency_of, tenant_requests
from fairshare.runner.outcome import Outcome
from fairshare.runner.plan import Deployment, PlannedCell, RunPlan, plain
from fairshare.runner.search import knee_hunt
from fairshare.runner.settings import Settings
from fairshare.scheduling.policies import policy_for
from fairshare.scheduling.policy import SchedulingPolicy, Tenants
from fairshare.serving.command import server_command
from fairshare.serving.memory import gpu_memory
from fairshare.sharing.plan import PartitionPlan, Slot
from fairshare.spec.launcher import DeviceKind, Engine, Launcher
from fairshare.spec.scenario import Tenant
from fairshare.spec.workload import ClosedLoop
from fairshare.units import NS_PER_S
from fairshare.virtual.clock import Clock
from fairshare.virtual.deployed import SlotMemory, deploy
from fairshare.virtual.options import options_in
from fairshare.virtual.physics import PUBLISHED, Constants
from fairshare.virtual.simulate import simulate
from fairshare.virtual.simulated import SimulatedServer
from fairshare.virtual.tokens import encode
from fairshare.virtual.traffic import Source
from fairshare.workload.contents import Adjustments
from fairshare.workload.requests import PlannedRequest

VIRTUAL_TIME = "predicted in virtual time: no server was started and no socket opened"
IN_ENGINE = "the policy decides inside the engine here, also where a run would have a gateway"
Sink = Callable[[RequestRecord], None]


def predict(
    settings: Settings,
    plan: RunPlan,
    directory: Path,
    *,
    request: Mapping[str, Any],
    constants: Constants = PUBLISHED,
) -> Outcome:
    """Simulate every cell of the plan into ``directory``; of a search, every cell that it asks for.

    Raises:
        SpecError: the plan is for another device than a simulated one.
        ResultsError: the folder cannot be used.
    """
    require_simulated(settings)
    store = ResultStore.create(directory, _header(settings, plan, request))
    outcome = Outcome()
    for infeasible in plan.infeasible:
        result = blank_result(infeasible.cell, settings, None, CellStatus.INFEASIBLE)
        result.reason = infeasible.reason
        _write(store, infeasible.cell, result, lambda sink: None)
        outcome.results.append(result)
    hunt = knee_hunt(settings)
    plan = plan if hunt is None else hunt.begin(plan, {})
    for deployment in plan.deployments:
        left = list(deployment.cells)
        while left:
            cell = left.pop(0)
            result = blank_result(cell, settings, deployment.plan, CellStatus.OK)
            result.deployment = deployment.id
            result.marks = list(deployment.plan.marks)
            running = _running(cell, deployment, settings, constants, result)
            stored = _write(store, cell, result, running)
            outcome.results.append(result)
            left += [] if hunt is None else hunt.after(cell, stored)
    outcome.overloaded = set() if hunt is None else hunt.overloaded
    return outcome


def require_simulated(settings: Settings) -> None:
    """Refuse what has no simulated engine behind it.

    Raises:
        SpecError: the device or the launcher is a real one.
    """
    if settings.device.kind is not DeviceKind.VIRTUAL or settings.launcher.engine != Engine.VIRTUAL:
        raise SpecError(
            "only simulated GPUs can be predicted",
            hint="name one with --device virtual:NAME (fairshare list device) and leave "
            "--launcher out",
        )


def predict_cell(
    cell: PlannedCell,
    deployment: Deployment,
    settings: Settings,
    sink: Sink,
    constants: Constants = PUBLISHED,
) -> tuple[tuple[int, int], int]:
    """Simulate one cell; its measured window and its end, in nanoseconds of the records' clock."""
    clock = Clock()
    slots = deployment.plan.slots
    servers = deploy(
        clock,
        gpu_spec(settings.device.id.removeprefix("virtual:")),
        deployment.plan,
        options={s.name: _options(settings, deployment.launcher, s) for s in slots},
        memory={s.name: _memory(settings, s) for s in slots},
        policy=lambda: _policy(cell),
        constants=constants,
    )
    sources = [_source(tenant, cell, deployment, settings, servers) for tenant in cell.tenants]
    done = simulate(clock, sources, cell.scenario.timing, sink)
    start_s, end_s = done.window_s
    return (round(start_s * NS_PER_S), round(end_s * NS_PER_S)), round(done.end_s * NS_PER_S)


def _running(
    cell: PlannedCell,
    deployment: Deployment,
    settings: Settings,
    constants: Constants,
    result: CellResult,
) -> Callable[[Sink], None]:
    def run(sink: Sink) -> None:
        account = Account()

        def both(record: RequestRecord) -> None:
            account.add(record)
            sink(record)

        window_ns, end_ns = predict_cell(cell, deployment, settings, both, constants)
        result.window_ns, result.end_ns = window_ns, end_ns
        result.client = {"virtual_time": True}
        result.notes.append(VIRTUAL_TIME)
        if cell.scheduler.place is not None:
            result.notes.append(IN_ENGINE)
        tenants = [tenant.name for tenant in cell.tenants]
        if failure := account.failure(tenants):
            result.status, result.reason = CellStatus.FAILED, failure
        elif unheard := account.unheard(tenants):
            result.marks.append(Mark.WEAK_EVIDENCE)
            result.reason = f"{', '.join(unheard)} began no request in the window (--window)"

    return run


def _write(
    store: ResultStore, cell: PlannedCell, result: CellResult, run: Callable[[Sink], None]
) -> StoredCell:
    writer = store.begin_cell(cell.id)
    writer.write_config(plain(cell.definition))
    result.started_at = time.time()
    run(writer.append)
    return StoredCell(writer.finish(result), result)


def _header(settings: Settings, plan: RunPlan, request: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "request": dict(request),
        "scenarios": {scenario.name: str(path.resolve()) for scenario, path in settings.scenarios},
        "device": settings.device,
        "device_reason": settings.device_reason,
        "virtual_time": True,
        "plan": [
            {"deployment": d.id, "label": d.plan.label, "cells": [cell.id for cell in d.cells]}
            for d in plan.deployments
        ],
        "infeasible": {i.cell.id: i.reason for i in plan.infeasible},
        "provenance": gather(
            settings.device, settings.launcher, engine_version=settings.engine_version
        ),
        "starts": [],
    }


def _source(
    tenant: Tenant,
    cell: PlannedCell,
    deployment: Deployment,
    settings: Settings,
    servers: Mapping[str, SimulatedServer],
) -> Source:
    slot = _slot_of(deployment.plan, tenant)
    model = settings.models[slot.model]
    requests = tenant_requests(
        tenant, cell, deployment.launcher, model, Adjustments(), as_text=False
    )
    cached = _options(settings, deployment.launcher, slot).enable_prefix_caching
    arrival = tenant.arrival
    return Source(
        tenant=tenant.name,
        server=servers[slot.name],
        server_name=slot.name,
        requests=requests(),
        concurrency=concurrency_of(tenant, cell),
        think_s=arrival.think_time_s if isinstance(arrival, ClosedLoop) else 0.0,
        timeout_s=tenant.timeout_s,
        prompt_of=partial(_prompt, vocab_size=model.vocab_size),
        prefix_caching=cached,
    )


def _prompt(request: PlannedRequest, *, vocab_size: int) -> Sequence[int]:
    ids = request.prompt_ids
    return encode(request.prompt_text or "", vocab_size) if ids is None else ids


def _slot_of(plan: PartitionPlan, tenant: Tenant) -> Slot:
    return next(slot for slot in plan.slots if tenant.name in slot.tenants)


def _policy(cell: PlannedCell) -> SchedulingPolicy:
    policy = cell.scheduler.policy
    return policy_for(policy.kind, policy.options, Tenants(terms_of(cell.tenants)))


def _memory(settings: Settings, slot: Slot) -> SlotMemory:
    memory = gpu_memory(slot, settings.device)
    return SlotMemory(memory.total_bytes, memory.budget_bytes)


def _options(settings: Settings, launcher: Launcher, slot: Slot) -> argparse.Namespace:
    command = server_command(
        launcher,
        slot,
        settings.models[slot.model],
        device=settings.device,
        port=1,
        run_dir=Path(),
        python=settings.python,
    )
    options = options_in(command.argv)
    if options is None:
        raise SpecError(
            f"launcher {launcher.name} starts a program of its own, which cannot be predicted",
            hint="leave --launcher out",
        )
    return options
