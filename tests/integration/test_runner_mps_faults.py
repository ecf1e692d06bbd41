"""What a run does when MPS fails under it, on the simulated GPU."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import psutil

from fairshare.records import CellStatus
from tests.workplace import Workplace, runs

ARGUMENTS = ("matrix", "brief.yaml", "--modes", "mps", "--device", "virtual", "--no-report")
Wait = Callable[[subprocess.Popen[str], str], str]


def events(place: Workplace, name: str) -> list[dict[str, Any]]:
    """The events of that name so far."""
    lines = (place.path / "out/events.jsonl").read_bytes().splitlines()
    return [event for event in map(orjson.loads, lines) if event["event"] == name]


def run_with(place: Workplace, wait_for: Wait, number: signal.Signals) -> str:
    """Run two cells; the daemon gets the signal in the window of the first."""
    process = place.start(*ARGUMENTS, "--concurrency", "1,2", "--output-dir", "out")
    try:
        seen = wait_for(process, "server feed ready")
        while not any(event["phase"] == "measure" for event in events(place, "cell.phase")):
            threading.Event().wait(0.02)  # the window's begin is told in no output
        os.kill(events(place, "mps.ready")[0]["pid"], number)
        assert process.stdout is not None
        return seen + process.stdout.read()
    finally:
        process.kill()
        process.wait()


def statuses(place: Workplace) -> list[tuple[CellStatus, str | None]]:
    """How the cells ended, in the order of their concurrency."""
    cells = sorted(place.cells("out").items())
    return [(cell.result.status, cell.result.reason) for _, cell in cells]


def test_a_fault_fails_its_cell_and_the_next_is_served_again(
    workplace: Workplace, wait_for: Wait
) -> None:
    """A fatal fault of one client hits all: every server is stopped, and started once more."""
    run_with(workplace, wait_for, signal.SIGUSR1)
    (first, why), (second, _) = statuses(workplace)
    assert first is CellStatus.FAILED
    assert "is in state FAULT" in (why or "")
    assert second is CellStatus.OK
    assert len(events(workplace, "server.ready")) == 4
    assert len(events(workplace, "mps.ready")) == 1


def test_a_daemon_that_dies_fails_the_cells(workplace: Workplace, wait_for: Wait) -> None:
    """Without its daemon MPS is silently off: no cell counts, and nothing is left."""
    output = run_with(workplace, wait_for, signal.SIGKILL)
    assert [status for status, _ in statuses(workplace)] == [CellStatus.FAILED] * 2
    assert "the MPS daemon died (exit code -9)" in output


def test_a_killed_run_lets_go_of_its_clients_first(workplace: Workplace, wait_for: Wait) -> None:
    """After a kill -9 of the run its daemon lives until a client that hangs is terminated."""
    process = workplace.start(*ARGUMENTS, "--output-dir", "out")
    wait_for(process, "server feed ready")
    daemon = psutil.Process(events(workplace, "mps.ready")[0]["pid"])
    log = Path(events(workplace, "mps.ready")[0]["pipe_dir"]).parent / "MPS-log/daemon.log"
    hanging = events(workplace, "server.ready")[0]["pid"]
    os.kill(hanging, signal.SIGSTOP)  # SIGTERM does not reach it any more
    with log.open() as reading:
        process.kill()
        process.wait()
        while runs(daemon):
            threading.Event().wait(0.02)
        said = reading.read()
    assert re.findall(r"Cmd:terminate_client \d+ (\d+)", said) == [str(hanging)]
    while workplace.leftovers():
        threading.Event().wait(0.05)
