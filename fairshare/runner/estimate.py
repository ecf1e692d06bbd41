"""How long a plan will take, roughly, before anything has run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fairshare.records import CellKey
from fairshare.runner.foresight import Foreseen
from fairshare.runner.plan import Deployment, PlannedCell, RunPlan
from fairshare.spec.launcher import Engine

# Seconds until one server is ready and gone again. A real start depends on model and disk; these
# are for a small model and serve to plan an evening, not to time it.
_START_S = {Engine.VIRTUAL: 1.5, Engine.EXTERNAL: 0.0, Engine.VLLM: 25.0, Engine.TGI: 30.0}
_DEFAULT_START_S = 20.0
_TYPICAL_DRAIN_S = 2.0  # most requests end soon after the window; drain_s is only the limit


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds of a plan: in all, and what each part takes."""

    starts_s: float
    cells_s: float

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.starts_s + self.cells_s


def cell_s(cell: PlannedCell) -> float:
    """How long one cell takes."""
    timing = cell.scenario.timing
    window_s = timing.window_s
    if timing.rounds is not None and timing.round_s is not None:
        window_s = min(window_s, timing.rounds * (timing.round_s + _TYPICAL_DRAIN_S))
    return timing.warmup_s + window_s + min(timing.drain_s, _TYPICAL_DRAIN_S)


def took_s(cell: PlannedCell, foreseen: Mapping[CellKey, Foreseen] | None = None) -> float:
    """How long one cell takes, as foreseen where something is."""
    known = (foreseen or {}).get(replace(cell.key, repetition=1))
    return known.took_s if known is not None and known.took_s else cell_s(cell)


def start_s(engine: Engine) -> float:
    """How long it takes to start and stop one server."""
    return _START_S.get(engine, _DEFAULT_START_S)


def starts_s(deployments: Sequence[Deployment], engine: Engine) -> float:
    """How long it takes to start and stop the servers, one after another."""
    return sum(len(deployment.plan.slots) for deployment in deployments) * start_s(engine)


def estimate(
    plan: RunPlan, engine: Engine, foreseen: Mapping[CellKey, Foreseen] | None = None
) -> Estimate:
    """How long the whole plan takes, as foreseen where something is, else by its timing."""
    return Estimate(
        starts_s=starts_s(plan.deployments, engine),
        cells_s=sum(took_s(cell, foreseen) for cell in plan.cells),
    )
