"""Work on several cores comes to the same as work on one."""

from __future__ import annotations

import copy
import os
import signal
from pathlib import Path

import pytest

from fairshare.analysis import analyze as analyze_module
from fairshare.analysis import workers
from fairshare.analysis.aggregate import rows
from fairshare.analysis.analyze import analyze
from fairshare.analysis.summary import summary_csv, summary_json
from fairshare.analysis.workers import side_by_side
from fairshare.errors import FairshareError, Location, ResultsError
from fairshare.records import Mode
from tests.results_factory import make_results


def killed(number: int) -> int:
    """What a process is told that runs out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def process_of(_: int) -> int:
    """Which process is at work."""
    return os.getpid()


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, however many cores there are."""
    monkeypatch.setattr(workers, "cores", lambda: 2)


def test_work_is_done_elsewhere() -> None:
    """Several cores means other processes than this one."""
    assert os.getpid() not in side_by_side(process_of, range(2))


def test_work_is_done_without_room_for_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for temporary files whose path is too long costs time, and no figure."""

    def too_long() -> None:
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", too_long)
    workers.prepare()
    assert os.getpid() not in side_by_side(process_of, range(2))


def test_a_killed_process_is_one_message() -> None:
    """The kernel's out-of-memory killer ends in words, not in a traceback of the pool."""
    with pytest.raises(FairshareError, match="killed"):
        side_by_side(killed, range(2))


def test_a_complaint_comes_back_whole() -> None:
    """What a process raises is taken apart and rebuilt: place, evidence and hint survive that."""
    error = ResultsError("damaged", hint="move it", where=Location(Path("a"), 1), evidence=["{"])
    assert str(copy.copy(error)) == str(error)


def test_cells_analysed_side_by_side_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Summaries do not depend on the number of cores."""
    store = make_results(
        tmp_path / "r", modes=[Mode.LOGICAL, Mode.MPS], concurrency=[4], window_s=5.0
    )
    alone = analyze(store)
    monkeypatch.setattr(analyze_module, "_WORTH_PROCESSES_BYTES", 0)
    together = analyze(store)
    assert summary_csv(together) == summary_csv(alone)
    assert summary_json(together, rows(together)) == summary_json(alone, rows(alone))
