"""status, clean and a refused start, as a user sees them."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import orjson
import pytest
from processes_children import assert_gone, reaper_of

from tests.workplace import Workplace

Wait = Callable[[Popen[str], str], str]
SWEEP = ("matrix", "brief.yaml", "--modes", "mps", "--output-dir", "out", "--no-report")


@pytest.fixture
def running(workplace: Workplace, wait_for: Wait) -> Popen[str]:
    """A run in the middle of a long window."""
    text = (workplace.path / "brief.yaml").read_text()
    workplace.write("brief.yaml", text.replace("window_s: 1", "window_s: 60"))
    run = workplace.start(*SWEEP)
    wait_for(run, "server feed ready")
    return run


def _kill_with_reaper(run: Popen[str]) -> None:
    reaper = reaper_of(run.pid)
    reaper.signal(signal.SIGKILL)
    assert_gone(reaper)
    run.kill()
    run.communicate()


def _journals(workplace: Workplace) -> list[Path]:
    return list((workplace.path / "state" / "runs").iterdir())


def test_who_holds_the_device_is_told(workplace: Workplace, running: Popen[str]) -> None:
    """A second run gets exit code 4 and the first one's pid; status shows its servers."""
    refused = workplace.run(*SWEEP[:-2], "other")
    assert refused.returncode == 4, refused.stdout
    assert f"pid {running.pid} of " in refused.stdout
    assert str(workplace.path / "out") in refused.stdout
    assert not (workplace.path / "other").exists()
    seen = orjson.loads(workplace.run("status", "--json").stdout)
    holders = {device["holder"]["pid"] for device in seen["devices"] if device["holder"]}
    assert running.pid in holders
    (run,) = [run for run in seen["runs"] if run["owner_pid"] == running.pid]
    assert run["state"] == "live"
    assert {"chat", "feed", "mps-control"} <= {p["slot"].split("/")[0] for p in run["processes"]}
    assert any("MPS daemon" in change for change in run["changes"])
    assert f"held by pid {running.pid}" in workplace.run("status").stdout
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)


def test_clean_does_what_it_said(workplace: Workplace, running: Popen[str]) -> None:
    """Of a run killed with its reaper all is left until clean, and nothing after it."""
    _kill_with_reaper(running)
    (journal,) = _journals(workplace)
    assert f"{journal.stem}: dead" in workplace.run("status").stdout
    before = workplace.leftovers()
    planned = workplace.run("clean", "--dry-run")
    assert planned.returncode == 0, planned.stdout
    assert "would undo MPS daemon in " in planned.stdout
    assert f"would remove {journal}" in planned.stdout
    assert {line for line in before if "/" in line} <= set(workplace.leftovers())
    done = workplace.run("clean")
    assert done.returncode == 0, done.stdout
    assert "undid MPS daemon in " in done.stdout
    assert workplace.leftovers() == []
    assert journal.stem not in workplace.run("status").stdout


def test_clean_needs_no_reader(workplace: Workplace, running: Popen[str]) -> None:
    """All is undone although the log is on a full disk, or the reader has gone (`| true`)."""
    _kill_with_reaper(running)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            workplace.command("clean"), env=workplace.env, stdout=full, timeout=60, check=False
        )
    assert done.returncode == 0
    assert workplace.leftovers() == []


def test_a_journal_that_cannot_be_read_is_never_passed_over(
    workplace: Workplace, running: Popen[str]
) -> None:
    """Clean ends what it can and exits with 3, status and the next start say so, until it goes."""
    _kill_with_reaper(running)
    (journal,) = _journals(workplace)
    intact = journal.read_bytes()
    journal.write_bytes(b"garbage\n" + intact)
    assert "damaged" in workplace.run("status").stdout
    failed = workplace.run("clean")
    assert failed.returncode == 3, failed.stdout
    assert f"FAILED: the journal {journal} cannot be understood" in failed.stdout
    assert "then remove the file" in failed.stdout
    text = (workplace.path / "brief.yaml").read_text()
    workplace.write("brief.yaml", text.replace("window_s: 60", "window_s: 1"))
    started = workplace.run("run", "brief.yaml", "--mode", "logical", "--output-dir", "next")
    assert started.returncode == 0, started.stdout
    assert f"FAILED: the journal {journal} cannot be understood" in started.stdout
    journal.write_bytes(intact)
    assert workplace.run("clean").returncode == 0
