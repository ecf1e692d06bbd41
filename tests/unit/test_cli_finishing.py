"""--on-finish hears how a run ended, and cannot change it."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

from fairshare.cli.finishing import Command, Tally, finishing
from fairshare.errors import ExitCode, StoppedEarlyError
from fairshare.processes.labelled import RUN_LABEL
from fairshare.runner.hook import Hook


def writes(path: Path, *names: str) -> Hook:
    """A hook that writes these variables to a file."""
    code = (
        "import os, sys; told = [os.environ.get(name) for name in sys.argv[2:]]; "
        "open(sys.argv[1], 'w').write(repr(told))"
    )
    return Hook((sys.executable, "-c", code, str(path), *names), 30.0)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (SystemExit(ExitCode.SOME_CELLS_FAILED), 1),
        (click.UsageError("no"), 2),
        (StoppedEarlyError("full"), 5),
        (KeyboardInterrupt(), 130),
        (RuntimeError("a bug"), 1),
    ],
)
def test_it_is_told_whatever_way_a_run_ends(
    tmp_path: Path, error: BaseException | None, code: int
) -> None:
    """The exit code to come and the counts of cells; the error itself goes on its way."""
    note = tmp_path / "note"
    hook = writes(note, "FAIRSHARE_EXIT_CODE", "FAIRSHARE_CELLS_OK", "FAIRSHARE_CELLS_LEFT")

    def run() -> None:
        with finishing(hook, tmp_path) as tally:
            tally({"event": "sweep.started", "cells": 4})
            for status in ("ok", "failed", "infeasible"):
                tally({"event": "cell.finished", "status": status})
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(type(error)):
            run()
    assert note.read_text() == repr([str(code), "1", "2"])


def test_it_is_no_part_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It carries no label, so that nobody ends it with a run; it knows the results as a path."""
    note = tmp_path / "note"
    monkeypatch.setenv(RUN_LABEL, "some-run")
    monkeypatch.chdir(tmp_path)
    with finishing(writes(note, RUN_LABEL, "FAIRSHARE_RESULT_DIR", "FAIRSHARE_SUMMARY"), Path("o")):
        pass
    assert note.read_text() == repr([None, str(tmp_path / "o"), ""])


@pytest.mark.parametrize(
    ("code", "timeout_s", "problem"),
    [
        ("raise SystemExit(3)", 30.0, "ended with exit code 3"),
        ("import os, signal; os.kill(os.getpid(), 9)", 30.0, "was ended by SIGKILL"),
        ("import time; time.sleep(60)", 0.2, "was ended: it took longer than 200 ms"),
    ],
)
def test_its_failure_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], code: str, timeout_s: float, problem: str
) -> None:
    """What went wrong stands on standard error, and nothing else comes of it."""
    with finishing(Hook((sys.executable, "-c", code), timeout_s), tmp_path):
        pass
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "  ", "echo 'open", "no-such-program-here -x", "| sort"])
def test_what_could_never_run_is_refused_before_anything_is_measured(text: str) -> None:
    """A slip in the command does not show only after a night."""
    with pytest.raises(click.BadParameter):
        Command().convert(text, None, None)


def test_no_shell_sees_the_command() -> None:
    """Quotes group words; what a shell would run or expand is text."""
    assert Command().convert("echo 'a b' $(reboot) ; x", None, None) == (
        "echo", "a b", "$(reboot)", ";", "x",
    )  # fmt: skip


def test_a_run_is_over_when_every_cell_has_ended() -> None:
    """Nothing is imported for figures while a search still asks for another cell."""
    tally = Tally()
    assert not tally.over
    tally({"event": "sweep.started", "cells": 1})
    tally({"event": "cell.finished", "status": "infeasible"})
    tally({"event": "cell.finished", "status": "ok"})
    assert tally.over
    tally({"event": "search.asked"})
    assert not tally.over
    tally({"event": "cell.finished", "status": "failed"})
    assert tally.over
