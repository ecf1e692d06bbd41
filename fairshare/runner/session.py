"""One invocation: result folder, event log, signals, and the sweep between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairshare.events import EventLog, Listener
from fairshare.processes.heap import keep_large_apart
from fairshare.results import layout
from fairshare.results.files import writing
from fairshare.results.ownership import sole_writer
from fairshare.results.provenance import with_machines
from fairshare.results.store import ResultStore
from fairshare.runner.budget import Budget
from fairshare.runner.conducting import conduct
from fairshare.runner.eta import Eta
from fairshare.runner.foresight import foresee
from fairshare.runner.ground import ground
from fairshare.runner.outcome import Outcome
from fairshare.runner.plan import RunPlan
from fairshare.runner.renewal import Choice, Renewal, renew, renewal
from fairshare.runner.search import KneeHunt, knee_hunt
from fairshare.runner.settings import Settings
from fairshare.runner.site import Site


def default_output_dir(name: str) -> Path:
    """A new folder below ``results/`` of the working folder."""
    return Path("results") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def execute(
    settings: Settings,
    plan: RunPlan,
    directory: Path,
    *,
    resume: bool,
    request: Mapping[str, Any],
    listeners: Sequence[Listener],
    budget_s: float | None = None,
    skip_unready: bool = False,
    choice: Choice | None = None,
    site: Site = ground,
) -> Outcome:
    """Run the plan into ``directory``; ``request`` is kept in matrix.json, for reruns.

    ``choice`` says which of its cells are run (without it, all), and with ``resume`` which of those
    that the folder has already are measured again. Cells that no longer fit into ``budget_s``
    seconds from now are left for another call. With ``skip_unready`` cells of modes that this
    machine is not ready for are infeasible, and the others run. ``site`` has the devices: this
    machine's, or those of many.

    Raises:
        DeviceBusyError: another run holds the device.
        FairshareError: see :meth:`Sweep.run`; also when the folder cannot be used.
    """
    keep_large_apart()
    return asyncio.run(
        _execute(
            settings,
            plan,
            directory,
            resume=resume,
            request=request,
            listeners=listeners,
            budget_s=budget_s,
            skip_unready=skip_unready,
            choice=choice or Choice(),
            site=site,
        )
    )


async def _execute(
    settings: Settings,
    plan: RunPlan,
    directory: Path,
    *,
    resume: bool,
    request: Mapping[str, Any],
    listeners: Sequence[Listener],
    budget_s: float | None,
    skip_unready: bool,
    choice: Choice,
    site: Site,
) -> Outcome:
    ends_s = None if budget_s is None else time.monotonic() + budget_s
    async with site(settings, plan, directory, skip_unready=skip_unready) as place:
        plan = place.plan
        header = _header(settings, plan, request, place.provenance)
        hunt = knee_hunt(settings)
        with sole_writer(directory):
            store, plan, found = _store(
                plan, directory, resume=resume, choice=choice, header=header, hunt=hunt
            )
            with EventLog(directory / layout.EVENTS) as events:
                for listener in listeners:
                    events.listen(listener)
                events.listen(Eta(plan, settings.launcher.engine, events, devices=place.devices))
                place.tell(events)
                _tell_beginning(events, plan, found, header["order"])
                budget = await asyncio.to_thread(_budget, settings, plan, store, ends_s)
                sweep = place.conductor(store, events, budget=budget, hunt=hunt)
                looked_for = hunt.overloaded if hunt else set()
                sweep.outcome.kept_failed = [c for c in found.kept_failed if c not in looked_for]
                outcome = await conduct(sweep, plan, trial=skip_unready)
                events.emit("sweep.finished", stopped=outcome.stopped)
    return outcome


def _header(
    settings: Settings, plan: RunPlan, request: Mapping[str, Any], provenance: dict[str, Any]
) -> dict[str, Any]:
    """What ``matrix.json`` says, of the whole sweep however few of its cells are run now."""
    return {
        "request": dict(request),
        "scenarios": {scenario.name: str(path.resolve()) for scenario, path in settings.scenarios},
        "device": settings.device,
        "device_reason": settings.device_reason,
        "plan": [
            {"deployment": d.id, "label": d.plan.label, "cells": [cell.id for cell in d.cells]}
            for d in plan.deployments
        ],
        "infeasible": {i.cell.id: i.reason for i in plan.infeasible},
        "order": {"kind": settings.matrix.order, "seed": settings.matrix.order_seed},
        "provenance": provenance,
        "starts": [],
    }


def _store(
    plan: RunPlan,
    directory: Path,
    *,
    resume: bool,
    choice: Choice,
    header: Mapping[str, Any],
    hunt: KneeHunt | None,
) -> tuple[ResultStore, RunPlan, Renewal]:
    """The result folder, new or gone on with, what is to be run into it, and what of it counts."""
    with writing(directory):
        begun = (directory / layout.MATRIX).exists()
    if not resume or not begun:
        meant = plan.without(choice.selection.left_out(plan))
        first = meant if hunt is None else hunt.begin(meant, {})
        return ResultStore.create(directory, dict(header)), first, Renewal()
    store = ResultStore.open(directory)
    left, found = left_to_run(store, plan, hunt, choice, header["request"])
    renew(store, found)
    store.save_matrix(
        {
            **header,
            "starts": store.matrix.get("starts", []),
            "order": header["order"] if left.cells else store.matrix.get("order"),
            "provenance": with_machines(header["provenance"], store.matrix.get("provenance")),
        }
    )
    return store, left, found


def left_to_run(
    store: ResultStore,
    plan: RunPlan,
    hunt: KneeHunt | None,
    choice: Choice,
    request: Mapping[str, Any],
) -> tuple[RunPlan, Renewal]:
    """What of a plan a folder still lacks, and what of the folder counts; changes nothing.

    Raises:
        ResultsError: see :func:`fairshare.runner.renewal.renewal`.
    """
    meant = plan.without(choice.selection.left_out(plan))
    if hunt is None:
        found = renewal(store, plan, choice, request)
        return meant.without(found.kept), found
    cells = {cell.result.id: cell for cell in store.examined()[0]}
    found = renewal(store, hunt.spread(plan, cells.values()), choice, request)
    return hunt.begin(meant, {each: cells[each] for each in found.kept}), found


def _tell_beginning(
    events: EventLog, plan: RunPlan, found: Renewal, order: Mapping[str, Any]
) -> None:
    if found.kept or found.aside:
        events.emit(
            "sweep.resumed",
            kept=len(found.kept),
            kept_failed=found.kept_failed,
            superseded=[folder.name for folder in found.aside],
            damaged=found.damaged,
        )
    infeasible = len(plan.infeasible)
    events.emit("sweep.started", cells=len(plan.cells), infeasible=infeasible, order=order)


def _budget(
    settings: Settings, plan: RunPlan, store: ResultStore, ends_s: float | None
) -> Budget | None:
    """What is left of the time of this call, with the estimate that a plan shows."""
    if ends_s is None:
        return None
    started = [each["start_s"] for each in store.matrix.get("starts", ()) if each["start_s"]]
    foreseen = foresee(settings, plan)
    left_s = ends_s - time.monotonic()
    return Budget(left_s, settings.launcher.engine, foreseen, started)
