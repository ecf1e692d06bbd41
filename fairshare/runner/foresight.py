"""What a plan would show, before it is run: how long its cells take, and which SLOs are missed.

The model of the hardware is asked (:mod:`fairshare.runner.predict`), for a simulated GPU or a real
one of which it knows the figures. It is right within the errors that docs/predict.md states.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fairshare.analysis.arrays import columns
from fairshare.analysis.metrics import tenant_metrics
from fairshare.devices.constants import spec_of_product
from fairshare.errors import FairshareError
from fairshare.records import CellKey, CellStatus, RequestRecord
from fairshare.runner.calibration import HEEDED, simulated_model
from fairshare.runner.cell import blank_result
from fairshare.runner.plan import Deployment, PlannedCell, RunPlan, make_plan
from fairshare.runner.predict import predict_cell
from fairshare.runner.settings import Flags, Settings, settle
from fairshare.spec.launcher import DeviceKind
from fairshare.units import NS_PER_S

BUDGET_S = 3.0  # nobody wants to wait long for a plan
_KEPT = 0.95  # of its requests; a tenant below that is told of


@dataclass(frozen=True, slots=True)
class Foreseen:
    """One cell as predicted: how long it takes, and the SLO attainment of tenants that miss theirs.

    ``infeasible`` says why it cannot exist on the device.
    """

    took_s: float = 0.0
    missed: Mapping[str, float] = field(default_factory=dict)
    infeasible: str | None = None


def foresee(settings: Settings, plan: RunPlan) -> dict[CellKey, Foreseen]:
    """Predict the first repetition of the plan's cells, as many as can be had in a few seconds.

    Empty where nothing is known of the device, the model or the engine; without the cells that the
    plan itself knows to be infeasible.
    """
    known = {_first(each.cell) for each in plan.infeasible}
    try:
        simulated, predicted = _simulated(settings, plan)
    except FairshareError:
        return {}
    found = {
        key: Foreseen(infeasible=each.reason)
        for each in predicted.infeasible
        if (key := _first(each.cell)) not in known
    }
    end_s = time.monotonic() + BUDGET_S
    for deployment in predicted.deployments:
        for cell in deployment.cells:
            if cell.key.repetition == 1 and time.monotonic() < end_s:
                found[cell.key] = _foreseen(cell, deployment, simulated)
    return found


def _first(cell: PlannedCell) -> CellKey:
    return replace(cell.key, repetition=1)


def _simulated(settings: Settings, plan: RunPlan) -> tuple[Settings, RunPlan]:
    """The same on the simulated GPU that stands for the device.

    Raises:
        FairshareError: none does.
    """
    if settings.device.kind is DeviceKind.VIRTUAL:
        return settings, plan
    gpu = spec_of_product(settings.device.name)
    if settings.device.kind is not DeviceKind.CUDA or gpu is None:
        raise FairshareError("no simulated GPU stands for this device")
    args = settings.launcher.args
    flags = Flags(
        device=f"virtual:{gpu.name}",
        launcher="virtual",
        model=simulated_model(settings.default_model),
        engine_args={name: args[name] for name in HEEDED if args.get(name) is not None},
    )
    matrix = settings.matrix.model_copy(update={"device": None, "launcher": None, "num_runs": 1})
    simulated = settle(matrix, flags, scenarios=settings.scenarios)
    return simulated, make_plan(simulated)


def _foreseen(cell: PlannedCell, deployment: Deployment, settings: Settings) -> Foreseen:
    records: list[RequestRecord] = []
    window_ns, end_ns = predict_cell(cell, deployment, settings, records.append)
    tenants = blank_result(cell, settings, deployment.plan, CellStatus.OK).tenants
    requests = columns(iter(records), tuple(tenant["name"] for tenant in tenants))
    window_s = window_ns[0] / NS_PER_S, window_ns[1] / NS_PER_S
    missed = {
        metrics.tenant: metrics.slo_attainment
        for metrics in tenant_metrics(requests, window_s, tenants)[:-1]
        if metrics.tenant and metrics.slo_attainment is not None
        if metrics.slo_attainment < _KEPT
    }
    return Foreseen(end_ns / NS_PER_S, missed)
