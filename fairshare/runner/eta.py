"""When a sweep ends: the plan's estimate, corrected by how wrong it has been so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairshare.events import EventLog
from fairshare.runner.budget import Pace
from fairshare.runner.estimate import cell_s, starts_s
from fairshare.runner.plan import RunPlan
from fairshare.spec.launcher import Engine


class Eta:
    """Listens to a sweep's events, and emits ``sweep.left`` whenever more is known.

    Cells and what is around them (servers that start and stop) are learned apart, since a cell's
    length is almost known before it begins and a start's is not. Where several ``devices`` work at
    once, starts are not learned.
    """

    def __init__(
        self, plan: RunPlan, engine: Engine, events: EventLog, *, devices: int = 1
    ) -> None:
        self._events = events
        self._devices = devices
        self._cells_s = {cell.id: cell_s(cell) for cell in plan.cells}
        # Not by name: each repetition has the same deployments again.
        self._waiting = [(each.id, starts_s([each], engine)) for each in plan.deployments]
        self._cells, self._around = Pace(), Pace()
        self._expected_around_s = self._deployed_t = self._in_cells_s = 0.0
        self._begun_t: dict[str, float] = {}

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Learn from one event."""
        match event["event"]:
            case "sweep.started":
                self._tell()
            case "deployment.started":
                self._leave(event["t"])
                self._deploy(event["deployment"], event["t"])
            case "cell.started":
                self._begun_t[event["cell"]] = event["t"]
            case "cell.finished":
                self._finish(event["cell"], event["t"])
                self._tell()

    def _finish(self, cell: str, now_t: float) -> None:
        expected_s = self._cells_s.pop(cell, None)
        begun_t = self._begun_t.pop(cell, None)
        if begun_t is not None and expected_s is not None:  # else it never began
            _learn(self._cells, expected_s, now_t - begun_t)
            self._in_cells_s += now_t - begun_t

    def _leave(self, now_t: float) -> None:
        """The servers of the deployment before, if there was one, are gone."""
        if (
            self._in_cells_s and self._devices == 1
        ):  # one that failed says nothing of how long a good one takes
            took_s = now_t - self._deployed_t - self._in_cells_s
            _learn(self._around, self._expected_around_s, took_s)

    def _deploy(self, name: str, now_t: float) -> None:
        number = next((i for i, (each, _) in enumerate(self._waiting) if each == name), None)
        if number is not None:
            _, self._expected_around_s = self._waiting.pop(number)
        self._deployed_t, self._in_cells_s = now_t, 0.0

    def _tell(self) -> None:
        left_s = self._cells.corrected(sum(self._cells_s.values()))
        left_s += self._around.corrected(sum(around_s for _, around_s in self._waiting))
        left_s /= self._devices
        self._events.emit("sweep.left", cells=len(self._cells_s), left_s=round(left_s, 3))


def _learn(pace: Pace, expected_s: float, took_s: float) -> None:
    """Events tell the time of day, and somebody may have set the clock back meanwhile."""
    if took_s >= 0:
        pace.note(expected_s, took_s)
