"""A terminal that goes away does not take the measurement with it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time

from fairshare.records import CellStatus
from tests.workplace import Workplace

RUN = ("matrix", "brief.yaml", "--device", "virtual", "--output-dir", "out", "--no-report")
LIMIT_S = 60


def test_a_reader_that_goes_away_does_not_end_the_run(workplace: Workplace) -> None:
    """``| head -1``: the cells are measured all the same, and the exit code says how they went."""
    process = workplace.start(*RUN, "--modes", "logical,timeslice")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(LIMIT_S) == 0
    statuses = [cell.result.status for cell in workplace.cells("out").values()]
    assert statuses == [CellStatus.OK, CellStatus.OK]


def test_a_closed_terminal_stops_the_run_in_good_order(workplace: Workplace) -> None:
    """The hang-up is a wish to stop, although it can be said to nobody that it is heeded."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        workplace.command(*RUN, "--modes", "logical", "--window", "60s"),
        cwd=workplace.path,
        env=workplace.env,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    seen = b""
    while b"[1/1]" not in seen:
        seen += os.read(controller, 4096)
    os.close(controller)
    process.send_signal(signal.SIGHUP)
    closed_s = time.monotonic()
    assert process.wait(LIMIT_S) == 130
    assert time.monotonic() - closed_s < LIMIT_S / 2
    statuses = [cell.result.status for cell in workplace.cells("out").values()]
    assert statuses == [CellStatus.INTERRUPTED]
