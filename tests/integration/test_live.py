"""A run under way seen from another shell, stopped, and the command that is told of its end."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from subprocess import Popen

import orjson

from fairshare.events import read_events
from fairshare.results.reading import read_records
from tests.workplace import Workplace

Wait = Callable[[Popen[str], str], str]
NOTE = "import os; print({k: v for k, v in os.environ.items() if k.startswith('FAIRSHARE_')})"


def test_a_run_is_seen_from_another_shell_and_stops_in_order(
    workplace: Workplace, wait_for: Wait
) -> None:
    """Status shows cell, tenants and results folder; Ctrl-C says what it does; the hook hears."""
    place = workplace
    place.write("note.py", f"{NOTE}\nraise SystemExit(7)\n")
    run = place.start(
        "matrix", "brief.yaml", "--device", "virtual", "--modes", "logical", "--window", "60s",
        "--output-dir", "out", "--no-report", "--on-finish", f"{sys.executable} note.py",
    )  # fmt: skip
    wait_for(run, "server all ready")
    log = place.path / "out" / "events.jsonl"
    told: list[str] = []
    while "cell.progress" not in told:  # the next line is written within two seconds
        time.sleep(0.1)
        with log.open("rb") as file:
            told = [event["event"] for event in read_events(file)]
    seen = orjson.loads(place.run("status", "--json").stdout)
    run.send_signal(signal.SIGINT)
    rest = run.communicate(timeout=60)[0]
    courses = [each["progress"] for each in seen["runs"] if each["progress"] is not None]
    (course,) = [each for each in courses if each["results"] == str(place.path / "out")]
    assert (course["cells"], course["phase"]) == (1, "measure")
    assert set(course["tenants"]) == {"chat", "feed"}
    assert run.returncode == 130, rest  # whatever the hook's own is
    assert "nothing more is sent" in rest
    assert "Ctrl-C again stops at once" in rest
    assert "'FAIRSHARE_EXIT_CODE': '130'" in rest
    assert "'FAIRSHARE_CELLS_LEFT': '1'" in rest
    assert f"'FAIRSHARE_RESULT_DIR': '{place.path / 'out'}'" in rest
    assert "FAIRSHARE_RUN'" not in rest  # else it would be taken for a child of the run
    assert "--on-finish" in rest
    assert "ended with exit code 7" in rest
    (cut_off,) = (place.path / "out" / "cells").glob("*.partial/requests.jsonl")
    assert {record.error for record in read_records(cut_off, complete=False)} == {None}
