"""MIG instances of somebody else on the GPU that a killed run uses."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.chaos.stage import staged
from tests.chaos.tally import TALLY

ONE_SLICE = 19  # the id of 1g.5gb


@pytest.mark.parametrize("reaper", [True, pytest.param(False, marks=pytest.mark.full)])
def test_foreign_instances_outlive_a_killed_run(cache_dir: Path, reaper: bool) -> None:
    """A run killed beside foreign instances leaves them as they were, by UUID."""
    with staged(cache_dir, instances=(ONE_SLICE,)) as stage:
        theirs = stage.before["gpu"]["instances"]
        assert len(theirs) == 1
        run = stage.begin(
            *stage.matrix("mig", "--mig-layout", "3g.20gb,2g.10gb", "--model", "qwen3-0.6b")
        )
        stage.wait_event(run, "cell.started")
        stage.kill(run, reaper=reaper)
        started_s = time.monotonic()
        if reaper:
            assert stage.clean().returncode == 0
        stage.wait_restored()
        took_s = time.monotonic() - started_s
        assert stage.traces()["gpu"]["instances"] == theirs
        TALLY.add("run killed beside foreign instances", f"reaper killed: {reaper}", took_s)


def test_foreign_instances_that_leave_no_room_are_not_touched(cache_dir: Path) -> None:
    """A run that does not fit beside them fails and destroys nothing."""
    with staged(cache_dir, instances=(ONE_SLICE,)) as stage:
        assert stage.begin(*stage.matrix("mig")).wait(timeout=240) == 1
        assert "leave no room" in stage.output
        assert stage.differences() == []
