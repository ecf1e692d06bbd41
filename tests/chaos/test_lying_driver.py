"""The driver hangs, refuses or lies while a run's changes are undone: what is left is told."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fairshare.virtual.failing import FAIL_FILE
from tests.chaos.crowd import Act, many
from tests.chaos.stage import Stage
from tests.chaos.tally import TALLY
from tests.workplace import wait_end

pytestmark = pytest.mark.timeout(900)
ENDS_WITHIN_S = 240.0
NOT_ALL_UNDONE = 3
LIES = ["dci_in_use", "dgi_in_use", "dci_lies", "dgi_lies", "mode_lies=disable", "mig_in_use"]
HANGS = ["smi_hang=-dci", "smi_hang=-lgi", "smi_hang_after=-dgi", "smi_hang=-mig", "driver_missing"]
# Who meets the trouble: the run at its end, its reaper, or only who cleans up.
WHO = ["run", "reaper", "clean"]


def _meet(stage: Stage, knob: str, who: str) -> None:
    """Let a run or its reaper fail at undoing; returns when nobody tries any more."""
    run = stage.begin(*stage.matrix("mig"))
    stage.wait_event(run, "cell.started")
    (stage.gpu / FAIL_FILE).write_text(f"{knob}\n")
    if who == "run":
        code = run.wait(timeout=ENDS_WITHIN_S)
        undone = [each["event"] for each in stage.events() if each["event"] == "run.not_undone"]
        assert (code, bool(undone)) == (1, True), f"exit code {code}, told of {undone}"
        assert "Traceback" not in stage.output
        return
    stage.watch(run.pid)
    reapers = [each for each in stage.watched if stage.is_reaper(each)]
    stage.kill(run, reaper=who == "clean")
    for reaper in reapers:
        wait_end(reaper, ENDS_WITHIN_S)


def told_and_mended(knob: str, who: str) -> tuple[str, Act]:
    """What is left with a knob on is told by ``clean``, which puts it back once the knob is off."""

    def act(stage: Stage) -> None:
        _meet(stage, knob, who)
        left = stage.gpu_state()
        assert left != stage.before["gpu"], "nothing went wrong"
        refused = stage.clean()
        assert refused.returncode == NOT_ALL_UNDONE, refused.stdout
        assert "FAILED: MI" in refused.stdout, refused.stdout
        assert "Traceback" not in refused.stdout
        (stage.gpu / FAIL_FILE).unlink()
        started_s = time.monotonic()
        mended = stage.clean()
        assert mended.returncode == 0, mended.stdout
        stage.wait_restored()
        TALLY.add("driver lies, refuses or hangs, then no more", who, time.monotonic() - started_s)

    return f"{knob}, met by the {who}", act


def test_what_the_driver_does_not_undo_is_told(cache_dir: Path) -> None:
    """An instance or a mode that stays is no success: clean says 3, and puts it back later."""
    cases = [("dci_in_use", "run"), ("dgi_lies", "reaper"), ("mode_lies=disable", "clean")]
    many(cache_dir, [told_and_mended(*case) for case in cases])


@pytest.mark.full
def test_whatever_the_driver_does_not_undo_is_told(cache_dir: Path) -> None:
    """The same for every lie, and for a driver that hangs, whoever meets it."""
    many(cache_dir, [told_and_mended(knob, who) for knob in (*LIES, *HANGS) for who in WHO])
