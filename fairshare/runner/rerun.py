"""Run one cell of a result folder again, as it was defined there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fairshare.errors import Location, ResultsError, SpecError
from fairshare.records import CellKey
from fairshare.results import layout
from fairshare.results.store import ResultStore, StoredCell
from fairshare.runner.plan import RunPlan, make_plan
from fairshare.runner.settings import Flags, Settings, settle
from fairshare.spec.launcher import Launcher
from fairshare.spec.loading import validate
from fairshare.spec.matrix import Matrix
from fairshare.spec.scenario import Scenario

# What of a sweep says on what, and by what, it is measured.
_OF_THE_PLACE = ("device", "launcher", "model", "transport", "load_processes")
_DAMAGED = (AttributeError, TypeError, ValueError)  # by what a value of another type is told
_UNREADABLE = (*_DAMAGED, OSError, KeyError, yaml.YAMLError, RecursionError)


def request_of(matrix: Matrix, flags: Flags) -> dict[str, Any]:
    """What the user asked for, as kept in ``matrix.json`` for a rerun."""
    return {
        "matrix": matrix.model_dump(mode="json", exclude_unset=True),
        "flags": {**dataclasses.asdict(flags), "engine_args": dict(flags.engine_args)},
    }


def replay(
    folder: Path, cell_id: str, flags: Flags, *, elsewhere: bool = False
) -> tuple[Settings, RunPlan, Flags]:
    """The plan that holds just this cell, from the folder's own definition of it.

    Flags given now win over those of the original run; ``elsewhere``, they alone say on what it
    runs. Scenario and launcher are taken from the folder, so that later edits of the files do not
    matter.

    Raises:
        ResultsError: there is no such folder or cell.
        SpecError: what the cell needs (a model, a dataset) is no longer there.
    """
    store = ResultStore.open(folder)
    stored = _find(store, cell_id)
    key = stored.result.key
    scenario, launcher, scheduling = _definition(stored.dir / layout.CONFIG)
    try:
        matrix, flags = _request(store.matrix, key, flags, scheduling, elsewhere=elsewhere)
        base = Path(store.matrix.get("scenarios", {}).get(key.scenario, "."))
    except _DAMAGED as error:
        where = Location(store.dir / layout.MATRIX)
        raise ResultsError(f"damaged: the request: {error}", where=where) from None
    settings = settle(
        matrix,
        flags,
        scenarios=[(scenario, base)],
        launcher=launcher if flags.launcher is None else None,
    )
    plan = _only(make_plan(settings), key)
    return settings, plan, flags


def _definition(path: Path) -> tuple[Scenario, Launcher, dict[str, Any]]:
    """Scenario, launcher and what a matrix says of the policy, as the cell's own file has them."""
    try:
        config = yaml.safe_load(path.read_text("utf-8"))
        scenario = validate({**config["scenario"], "tenants": config["all_tenants"]}, Scenario)
        launcher = validate(config["launcher"], Launcher)
        return scenario, launcher, _scheduling(config.get("scheduling"))
    except SpecError as error:
        raise ResultsError(f"damaged: {error.message}", where=Location(path)) from None
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ResultsError(f"cannot be read: {reason}", where=Location(path)) from None


def _scheduling(defined: Mapping[str, Any] | None) -> dict[str, Any]:
    if defined is None:
        return {"policies": ["fcfs"], "scheduling": []}
    policy, gateway = defined["policy"], defined["gateway"] or {}
    return {
        "policies": [{"kind": policy["kind"], **policy["options"]}],
        "scheduling": [defined["place"]],
        "gateway_window": gateway.get("window"),
    }


def _find(store: ResultStore, cell_id: str) -> StoredCell:
    cells = store.cells()
    for cell in cells:
        if cell_id in (cell.result.id, cell.result.key.slug):
            return cell
    raise ResultsError(
        f"{store.dir} has no cell {cell_id!r}",
        hint="it has " + ", ".join(cell.result.id for cell in cells[:10])
        if cells
        else "it has no cells",
    )


def _request(
    document: Mapping[str, Any],
    key: CellKey,
    flags: Flags,
    scheduling: Mapping[str, Any],
    *,
    elsewhere: bool = False,
) -> tuple[Matrix, Flags]:
    request = document.get("request", {})
    narrowed = {
        **{
            name: value
            for name, value in request.get("matrix", {}).items()
            if not (elsewhere and name in _OF_THE_PLACE)
        },
        "name": "rerun",
        "scenarios": [key.scenario],
        "modes": [key.mode.value],
        "concurrency": [key.concurrency] if key.concurrency else [],
        "load_scale": [key.load_scale],
        "num_runs": key.repetition,
        "search": None,  # of its cells just this one; its shares are in its own scenario
        **scheduling,
    }
    original = Flags() if elsewhere else Flags(**request.get("flags", {}))
    changes = {
        field.name: getattr(flags, field.name)
        for field in dataclasses.fields(flags)
        if getattr(flags, field.name)
    }
    return validate(narrowed, Matrix), dataclasses.replace(original, **changes)


def _only(plan: RunPlan, key: CellKey) -> RunPlan:
    alike = dataclasses.replace(key, shares=None)
    others = {cell.id for cell in plan.cells if cell.key != alike}
    kept = plan.without(others)
    infeasible = tuple(i for i in plan.infeasible if i.cell.key == alike)
    if not kept.deployments and not infeasible:
        raise SpecError(f"the cell {key.slug} no longer follows from its own definition")
    return dataclasses.replace(kept, infeasible=infeasible)
