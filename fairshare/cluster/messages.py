"""What the driver and a node's process say to each other. Both are of one version."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from fairshare.devices.driver import Driver
from fairshare.runner.plan import RunPlan
from fairshare.runner.settings import Flags, Settings
from fairshare.spec.launcher import Launcher
from fairshare.spec.matrix import Matrix
from fairshare.spec.scenario import Scenario

PIECE_BYTES = 1 << 16  # Ray sends what is below 100 kB with the answer itself, past its store
STOP, KILL = b"stop", b"kill"  # what is said to a node's process while it works


class LostError(Exception):
    """An agent, or our process beside it, is gone; ``agent_lives`` says which of the two."""

    def __init__(self, reason: str, *, agent_lives: bool) -> None:
        super().__init__(reason)
        self.agent_lives = agent_lives


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a plan follows from, found and read where the command was given.

    ``folders`` has, for each scenario, the folder that its relative paths begin at: a file below
    it is in ``files`` with its contents, unless the scenario needs the folder itself (``kept``).
    """

    matrix: Matrix
    flags: Flags
    scenarios: tuple[Scenario, ...]
    launcher: Launcher
    folders: Mapping[str, Path]
    files: Mapping[str, Mapping[str, bytes]]
    kept: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Part:
    """The cells of one deployment that are to be run, and what defines each."""

    deployment: str
    cells: Mapping[str, Mapping[str, Any]]
    budget_s: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """What a node's process is told: to run a part of the plan, or (None) only to look."""

    inputs: Inputs
    results: Path
    part: Part | None = None


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What a plan comes to on a node, and what the node is."""

    settled: dict[str, Any]
    plan: RunPlan
    provenance: dict[str, Any]
    reservations: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        settings: Settings,
        plan: RunPlan,
        provenance: dict[str, Any],
        reservations: list[dict[str, str]],
    ) -> Self:
        """What is told of a node; how its driver is reached is its own business."""
        settled = {f.name: getattr(settings, f.name) for f in fields(settings)}
        del settled["driver"]
        return cls(settled, plan, provenance, reservations)

    @property
    def settings(self) -> Settings:
        """The settings that the node came to, without its driver."""
        return Settings(**self.settled, driver=Driver())


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of the node's process."""

    event: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """The next bytes of a file of the result folder; the first begin it."""

    path: str
    data: bytes
    first: bool


@dataclass(frozen=True, slots=True)
class CellSent:
    """All files of a cell have been sent; ``complete`` is false for one that was given up."""

    id: str
    folder: str
    complete: bool


@dataclass(frozen=True, slots=True)
class ServersStarted:
    """All starts of servers in this job so far, as ``matrix.json`` lists them."""

    starts: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Ended:
    """The job is over and the device is as it was found.

    ``left`` cells had no time; ``short`` is what the machine had too little of to go on.
    """

    left: list[str]
    next_s: float
    short: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The job could not be done, or something could not be put back."""

    message: str
    hint: str | None = None
    evidence: tuple[str, ...] = ()


Message = Surveyed | Happened | Piece | CellSent | ServersStarted | Ended | Failed


def packed(what: Message | Job) -> bytes:
    """The bytes that travel."""
    return pickle.dumps(what)


def unpacked(data: bytes) -> Any:
    """What was packed by the other side, which Ray lets run any code here as it is."""
    return pickle.loads(data)  # noqa: S301 - Ray itself unpickles what the same peers send
