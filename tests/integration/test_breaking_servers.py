"""Servers that fail in ways that no exit code tells."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import orjson

from fairshare.processes.labelled import environment_of
from fairshare.records import CellStatus
from tests.workplace import Workplace

RUN = ("matrix", "brief.yaml", "--device", "virtual", "--output-dir", "out", "--no-report")
LIMIT_S = 90


def _wait_for_event(workplace: Workplace, **wanted: str) -> None:
    """Read events.jsonl until one has these fields."""
    path = workplace.path / "out" / "events.jsonl"
    deadline_s = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline_s:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        events = [orjson.loads(line) for line in lines if line.endswith(b"\n")]
        if any(wanted.items() <= event.items() for event in events):
            return
        time.sleep(0.02)
    raise AssertionError(f"no event {wanted}")


def _servers(workplace: Workplace) -> list[int]:
    """Processes that carry a label of a run of this workplace."""
    state = workplace.env["FAIRSHARE_STATE_DIR"]
    found = []
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        environment = environment_of(pid)
        if environment.get("FAIRSHARE_STATE_DIR") == state and "FAIRSHARE_RUN" in environment:
            found.append(pid)
    return found


def test_a_server_that_hangs_is_found_out_and_started_again(workplace: Workplace) -> None:
    """Its process lives, so only a request that it should answer at once can tell."""
    process = workplace.start(
        *RUN, "--modes", "logical", "--concurrency", "1,2", "--window", "2s", "--drain", "0.5s"
    )
    _wait_for_event(workplace, event="cell.phase", phase="measure")
    (server,) = _servers(workplace)
    os.kill(server, signal.SIGSTOP)
    output, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1, output
    results = {c.result.key.concurrency: c.result for c in workplace.cells("out").values()}
    assert results[1].status is CellStatus.FAILED
    assert results[1].reason is not None
    assert "server all hangs" in results[1].reason
    assert results[2].status is CellStatus.OK
