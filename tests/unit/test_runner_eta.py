"""When a sweep ends, by the plan and by how wrong it has been."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairshare.events import EventLog
from fairshare.runner.eta import Eta
from fairshare.runner.plan import RunPlan
from fairshare.spec.launcher import Engine


def test_what_is_left_is_learned_from_what_is_over(plan: RunPlan) -> None:
    """Cells and starts are corrected apart, each by how long its like has taken."""
    told: list[Mapping[str, Any]] = []
    log = EventLog()
    eta = Eta(plan, Engine.VIRTUAL, log)
    log.listen(lambda event: told.append(event) if event["event"] == "sweep.left" else None)

    def happens(t: float, event: str, **fields: Any) -> None:
        eta({"t": t, "event": event, **fields})

    happens(0, "sweep.started")
    assert (told[-1]["cells"], told[-1]["left_s"]) == (8, 70.0)
    first, second = plan.deployments[:2]
    happens(0, "deployment.started", deployment=first.id)
    now = 6.0  # the servers took four times as long
    for cell in first.cells:
        happens(now, "cell.started", cell=cell.id)
        happens(now + 16, "cell.finished", cell=cell.id)  # and cells twice
        now += 16
    assert (told[-1]["cells"], told[-1]["left_s"]) == (6, 6 * 16 + 3 * 1.5)
    happens(now, "deployment.started", deployment=second.id)
    happens(now, "cell.finished", cell=second.cells[0].id)  # it never began
    assert (told[-1]["cells"], told[-1]["left_s"]) == (5, 5 * 16 + 2 * 6)
    happens(now, "cell.started", cell=second.cells[1].id)
    happens(now - 3600, "cell.finished", cell=second.cells[1].id)  # the clock was set back
    assert (told[-1]["cells"], told[-1]["left_s"]) == (4, 4 * 16 + 2 * 6)
