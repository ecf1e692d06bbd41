"""What may happen to a sweep that nobody watches, as a user finds it in the morning."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tests.workplace import Workplace

Wait = Callable[[subprocess.Popen[str], str], str]
CLEAN_WITHIN_S = 10.0
OUT = ("--output-dir", "out")


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    """A workplace with a simulated GPU of its own and cells of a moment."""
    workplace.env["FAIRSHARE_VIRTUAL_GPU"] = str(workplace.path / "gpu")
    text = (workplace.path / "brief.yaml").read_text()
    workplace.write("brief.yaml", text.replace("warmup_s: 0.3, window_s: 1", "window_s: 0.6"))
    return workplace


def _gpu(place: Workplace) -> dict[str, Any]:
    state: dict[str, Any] = orjson.loads((place.path / "gpu" / "state.json").read_bytes())
    return state


def _events(place: Workplace, name: str) -> list[dict[str, Any]]:
    lines = (place.path / "out" / "events.jsonl").read_bytes().splitlines()
    return [each for each in map(orjson.loads, lines) if each["event"] == name]


def test_a_deployment_that_always_fails_is_given_up(place: Workplace) -> None:
    """Crashed cells stay failed, the rest is left out with the reason; --retry-failed runs them."""
    sweep = (
        "matrix", "brief.yaml", "--modes", "logical", "--concurrency", "1,2,4", "--num-runs", "2",
        "--max-like-failures", "2", "--no-report", *OUT,
    )  # fmt: skip
    sound = dict(place.env)
    place.env["FAIRSHARE_VIRTUAL_FAIL"] = "server_dies_after=1"
    done = place.run(*sweep)
    assert done.returncode == 1, done.stdout
    assert len(_events(place, "server.ready")) == 2  # once more, and not again in the second round
    assert len(_events(place, "deployment.restarted")) == 1
    cells = place.cells("out")
    reasons = [cell.result.reason or "" for cell in cells.values()]
    assert len(reasons) == 6
    assert sum("2 failures in a row were alike" in reason for reason in reasons) == 4
    place.env = sound
    kept = place.run(*sweep, "--resume")
    assert kept.returncode == 1, kept.stdout
    assert "not run again without --retry-failed: 6 cells" in kept.stdout
    again = place.run(*sweep, "--retry-failed")
    assert again.returncode == 0, again.stdout
    assert {cell.result.status.value for cell in place.cells("out").values()} == {"ok"}
    assert len(list((place.path / "out" / "superseded").iterdir())) == 6


def test_a_device_that_is_put_back_only_later_does_not_end_the_night(place: Workplace) -> None:
    """What a deployment could not undo is undone from the journal, and the next one runs."""
    (place.path / "gpu").mkdir()
    (place.path / "gpu" / "fail").write_text("mode_lies=disable:1\n")
    done = place.run("matrix", "brief.yaml", "--modes", "mig,logical", "--no-report", *OUT)
    assert done.returncode == 0, done.stdout
    assert [cell.result.status.value for cell in place.cells("out").values()] == ["ok", "ok"]
    assert len(_events(place, "deployment.failed")) == 1
    assert [each["step"] for each in _events(place, "run.undone")] == ["MIG mode on GPU 0"]
    assert _gpu(place)["mig_mode"]["current"] == "Disabled"


def test_clocks_are_locked_and_slowdowns_are_marked(place: Workplace) -> None:
    """The lock is told beside every figure, and gone at the end; a hot GPU marks the cell."""
    place.env["FAIRSHARE_VIRTUAL_FAIL"] = "clocks_slowed"
    done = place.run(
        "run", "brief.yaml", "--mode", "logical", "--lock-clocks", "1200,1410", *OUT,
        "--window", "1.2s",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    (cell,) = place.cells("out").values()
    assert "clocks slowed" in [mark.value for mark in cell.result.marks]
    notes = "\n".join(cell.result.notes)
    assert "locked to 1200,1410 MHz" in notes
    assert "the driver slows it down for its heat" in notes
    assert "the driver slows it down for its heat" in (cell.dir / "gpu.csv").read_text()
    assert [len(_events(place, name)) for name in ("clocks.locked", "clocks.reset")] == [1, 1]
    assert "locked_clocks" not in _gpu(place)


def test_clocks_that_cannot_be_locked_fail_their_cells(place: Workplace) -> None:
    """Nothing is measured at other clocks than those that were asked for."""
    place.env["FAIRSHARE_VIRTUAL_FAIL"] = "clocks_no_permission"
    done = place.run("run", "brief.yaml", "--mode", "logical", "--lock-clocks", "1410", *OUT)
    assert done.returncode == 1, done.stdout
    (cell,) = place.cells("out").values()
    assert "clocks could not be changed" in (cell.result.reason or "")
    refused = place.run(
        "run", "brief.yaml", "--mode", "logical", "--device", "cpu", "--lock-clocks", "1410"
    )
    assert refused.returncode == 2, refused.stdout


def test_a_killed_run_lets_go_of_the_clocks(place: Workplace, wait_for: Wait) -> None:
    """After SIGKILL the reaper undoes the lock from the journal."""
    run = place.start(
        "run", "brief.yaml", "--mode", "logical", "--lock-clocks", "1410", "--window", "20s", *OUT
    )
    wait_for(run, "server all ready")
    assert _gpu(place)["locked_clocks"] == [1410, 1410]
    run.kill()
    run.communicate()
    deadline_s = time.monotonic() + CLEAN_WITHIN_S
    while place.leftovers() and time.monotonic() < deadline_s:
        time.sleep(0.05)  # the reaper is nobody's child: there is no event to wait for
    assert "locked_clocks" not in _gpu(place)
