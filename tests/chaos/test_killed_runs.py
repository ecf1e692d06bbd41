"""SIGKILL at every step of a run and at random moments: nothing is left, no other is touched."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.stage import Stage, staged
from tests.chaos.tally import TALLY

pytestmark = pytest.mark.timeout(1500)
# The runs mostly wait for their windows and for each other's servers.
AT_ONCE = 2 * (os.cpu_count() or 1)
SEED = 20261121


@dataclass(frozen=True)
class Doom:
    """Where a run dies: before or after its n-th journal line or driver tool; its reaper too?"""

    kind: str
    when: str
    reaper: bool
    number: int


@dataclass(frozen=True)
class Points:
    """What a run passes that nobody kills."""

    lines: list[str]
    tools: list[str]
    takes_s: float

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
    points = str(stage.path / "points")
    return [sys.executable, "-m", "tests.chaos.doomed", *words, points, "--", *stage.matrix()]


def restored(stage: Stage, kind: str, where: str, *, reaper: bool) -> str | None:
    """Wait until nothing is left, with ``fairshare clean`` if the reaper died too; a complaint."""
    started_s = time.monotonic()
    try:
        if reaper:
            cleaned = stage.clean()
            assert cleaned.returncode == 0, cleaned.stdout
        stage.wait_restored()
        took_s = time.monotonic() - started_s
    except AssertionError as error:
        return f"{kind}, {where}: {error}\n{stage.output[-1500:]}"
    TALLY.add(kind, where, took_s)
    return None


def many(cache_dir: Path, dooms: Iterable[Callable[[Stage], str | None]]) -> None:
    """Each on a stage of its own, several at once; fails with every complaint there was."""

    def one(doom: Callable[[Stage], str | None]) -> str | None:
        with staged(cache_dir) as stage:
            return doom(stage)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        complaints = [complaint for complaint in pool.map(one, dooms) if complaint]
    assert not complaints, f"{len(complaints)} times:\n" + "\n".join(complaints)


@pytest.fixture(scope="module")
def points(cache_dir: Path) -> Points:
    """The points that the run of these tests passes, and that it leaves nothing by itself."""
    with staged(cache_dir) as stage:
        started_s = time.monotonic()
        run = stage.launch(doomed(stage, None))
        assert run.wait(timeout=100) == 0, stage.output
        takes_s = time.monotonic() - started_s
        assert stage.differences() == []
        lines = (stage.path / "points").read_text().splitlines()
    told = [line.partition(" ") for line in lines]
    return Points(
        [what for kind, _, what in told if kind == "line"],
        [what for kind, _, what in told if kind == "tool"],
        takes_s,
    )


def die_at(doom: Doom, points: Points) -> Callable[[Stage], str | None]:
    """What kills a run at a point and waits for the clean-up."""

    def act(stage: Stage) -> str | None:
        run = stage.launch(doomed(stage, doom))
        if run.wait(timeout=100) != -signal.SIGKILL:
            return f"{points.where(doom)} never came:\n{stage.output}"
        with_reaper = ", its reaper killed too" if doom.reaper else ""
        kind = f"killed at a {doom.kind} of its {KINDS[doom.kind]}{with_reaper}"
        return restored(stage, kind, points.where(doom), reaper=doom.reaper)

    return act


KINDS = {"line": "journal", "tool": "driver calls"}


def test_killed_once_at_each_step(cache_dir: Path, points: Points) -> None:
    """Killed around each line of its journal, alone or with its reaper, a run leaves nothing."""
    kinds = [("before", False), ("after", False), ("before", True), ("after", True)]
    dooms = [Doom("line", *kinds[number % 4], number) for number in range(1, len(points.lines) + 1)]
    many(cache_dir, [die_at(doom, points) for doom in dooms])


@pytest.mark.full
def test_killed_before_and_after_each_step(cache_dir: Path, points: Points) -> None:
    """Killed before and after each line of its journal, alone and with its reaper."""
    dooms = [
        Doom("line", when, reaper, number)
        for number in range(1, len(points.lines) + 1)
        for when in ("before", "after")
        for reaper in (False, True)
    ]
    many(cache_dir, [die_at(doom, points) for doom in dooms])


@pytest.mark.full
def test_killed_while_a_driver_tool_runs(cache_dir: Path, points: Points) -> None:
    """Killed when it has just started a driver tool, a run leaves nothing of what that does."""
    dooms = [
        Doom("tool", "after", reaper, number)
        for number in range(1, len(points.tools) + 1)
        for reaper in (False, True)
    ]
    many(cache_dir, [die_at(doom, points) for doom in dooms])


def die_after(moment_s: float, *, reaper: bool) -> Callable[[Stage], str | None]:
    """What kills a run so long after its start."""

    def act(stage: Stage) -> str | None:
        run = stage.begin(*stage.matrix())
        time.sleep(moment_s)  # the moment is the test's
        over = run.poll() is not None
        if not over:
            stage.kill(run, reaper=reaper)
        last = stage.events()[-1]["event"] if stage.events() else "none"
        where = f"after {moment_s:.2f} s, last event {last}" + (" (it was over)" if over else "")
        with_reaper = ", its reaper killed too" if reaper else ""
        return restored(stage, f"killed at a random moment{with_reaper}", where, reaper=reaper)

    return act


def moments(count: int, points: Points) -> Iterator[float]:
    """Seeded moments of a run that takes as long as the one before."""
    source = random.Random(SEED)
    return (source.random() * points.takes_s for _ in range(count))


def test_killed_at_random_moments(cache_dir: Path, points: Points) -> None:
    """Killed at ten seeded moments, every other time with its reaper, a run leaves nothing."""
    dooms = [die_after(at_s, reaper=bool(n % 2)) for n, at_s in enumerate(moments(10, points))]
    many(cache_dir, dooms)


@pytest.mark.full
def test_killed_at_fifty_random_moments(cache_dir: Path, points: Points) -> None:
    """Killed at fifty seeded moments, alone and with its reaper, a run leaves nothing."""
    dooms = [
        die_after(at_s, reaper=reaper) for at_s in moments(50, points) for reaper in (False, True)
    ]
    many(cache_dir, dooms)
