"""SIGKILL at every step of a run and at random moments: nothing is left, no other is touched."""

from __future__ import annotations

import bisect
import random
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.crowd import Act, many, restored
from tests.chaos.stage import Stage, staged

pytestmark = pytest.mark.timeout(1500)
ENDS_WITHIN_S = 240
SEED = 20261121
KINDS = {"line": "journal", "tool": "driver calls"}


@dataclass(frozen=True)
class Doom:
    """Where a run dies: before or after its n-th journal line or driver tool; its reaper too?"""

    kind: str
    when: str
    reaper: bool
    number: int


@dataclass(frozen=True)
class Life:
    """What a run passes that nobody kills: its journal's lines, its tools, and when events came.

    The times are seconds since its start, in order.
    """

    lines: list[str]
    tools: list[str]
    events_s: list[float]

    def where(self, doom: Doom) -> str:
        """A doom in words."""
        names = self.lines if doom.kind == "line" else self.tools
        return f"{doom.when} {doom.kind} {doom.number} ({names[doom.number - 1]})"


def doomed(stage: Stage, doom: Doom | None) -> list[str]:
    """The command of a run that dies there, or (None) passes all points."""
    words = ["line", "never", "0", "without"]
    if doom is not None:
        reaper = "with" if doom.reaper else "without"
        words = [doom.kind, doom.when, str(doom.number), reaper]
    return stage.doomed(*words, "fairshare", *stage.matrix())


@pytest.fixture(scope="module")
def life(cache_dir: Path) -> Life:
    """The life of the run of these tests; by itself it leaves nothing."""
    with staged(cache_dir) as stage:
        began_s = time.time()
        run = stage.launch(doomed(stage, None))
        assert run.wait(timeout=ENDS_WITHIN_S) == 0, stage.output
        assert stage.differences() == []
        told = [line.partition(" ") for line in stage.points()]
        events = [each["t"] - began_s for each in stage.events()]
    return Life(
        [what for kind, _, what in told if kind == "line"],
        [what for kind, _, what in told if kind == "tool"],
        events,
    )


def die_at(doom: Doom, life: Life) -> tuple[str, Act]:
    """What kills a run at a point and waits for the clean-up."""

    def act(stage: Stage) -> None:
        run = stage.launch(doomed(stage, doom))
        code = run.wait(timeout=ENDS_WITHIN_S)
        assert code == -signal.SIGKILL, "it was never reached"
        kind = f"killed at a {doom.kind} of its {KINDS[doom.kind]}"
        restored(stage, kind, life.where(doom), reaper=doom.reaper)

    return life.where(doom), act


def test_killed_once_at_each_step(cache_dir: Path, life: Life) -> None:
    """Killed around each line of its journal, alone or with its reaper, a run leaves nothing."""
    kinds = [("before", False), ("after", True), ("after", False), ("before", True)]
    dooms = [Doom("line", *kinds[number % 4], number) for number in range(1, len(life.lines) + 1)]
    many(cache_dir, [die_at(doom, life) for doom in dooms])


@pytest.mark.full
def test_killed_before_and_after_each_step(cache_dir: Path, life: Life) -> None:
    """Killed before and after each line of its journal, alone and with its reaper."""
    dooms = [
        Doom("line", when, reaper, number)
        for number in range(1, len(life.lines) + 1)
        for when in ("before", "after")
        for reaper in (False, True)
    ]
    many(cache_dir, [die_at(doom, life) for doom in dooms])


@pytest.mark.full
def test_killed_while_a_driver_tool_runs(cache_dir: Path, life: Life) -> None:
    """Killed when it has just started a driver tool, a run leaves nothing of what that does."""
    numbers = range(1, len(life.tools) + 1)
    dooms = [Doom("tool", "after", bool(number % 2), number) for number in numbers]
    many(cache_dir, [die_at(doom, life) for doom in dooms])


def phase(events: Iterable[dict[str, Any]]) -> str:
    """The phase of its life that a run is in, by what it has told."""
    now, mode = "start-up", ""
    for each in events:
        match each["event"]:
            case "deployment.started":
                mode = f"{each['deployment'].partition('-')[0]}, "
                now = "set-up"
            case "server.starting":
                now = "servers start"
            case "cell.started":
                now = "cell"
            case "cell.finished":
                now = "teardown"
            case "partition.restored" | "mps.stopped":
                now = "left"
    return mode + now


def die_after(events: int, later_s: float, *, reaper: bool) -> tuple[str, Act]:
    """What kills a run so long after it has told of so many events."""

    def act(stage: Stage) -> None:
        run = stage.begin(*stage.matrix())
        stage.wait_events(run, events)
        until_s = time.monotonic() + later_s  # the moment is the test's
        while time.monotonic() < until_s and len(stage.events()) <= events:
            time.sleep(0.005)  # no later than the next event: it may be faster than it was
        assert run.poll() is None, "the run was over before"
        stage.kill(run, reaper=reaper)
        print(f"{later_s:.2f} s after event {events}: {phase(stage.events())}")
        restored(stage, "killed at a random moment", phase(stage.events()), reaper=reaper)

    return f"{later_s:.2f} s after event {events}, reaper killed: {reaper}", act


def moments(count: int, life: Life) -> Iterator[tuple[int, float]]:
    """Seeded moments, one in each of as many equal parts of a life: after which event, how long.

    Counted from the event before, they fall into the same phase on a machine that is busier.
    """
    source = random.Random(SEED)
    for part in range(count):
        at_s = (part + source.random()) / count * life.events_s[-1]
        events = bisect.bisect(life.events_s, at_s)
        yield events, at_s - ([0.0, *life.events_s])[events]


def test_killed_at_random_moments(cache_dir: Path, life: Life) -> None:
    """Killed at ten seeded moments, every other time with its reaper, a run leaves nothing."""
    drawn = enumerate(moments(10, life))
    many(cache_dir, [die_after(*moment, reaper=bool(n % 2)) for n, moment in drawn])


@pytest.mark.full
def test_killed_at_fifty_random_moments(cache_dir: Path, life: Life) -> None:
    """Killed at fifty seeded moments, alone and with its reaper, a run leaves nothing."""
    drawn = list(moments(50, life))
    acts = [die_after(*moment, reaper=reaper) for moment in drawn for reaper in (False, True)]
    many(cache_dir, acts)
