"""What the terminal shows while a sweep runs."""

from __future__ import annotations

import pytest

from fairshare.ui.progress import Progress


def test_cells_that_cannot_exist_are_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """The count is of the cells that run, so that it ends at N of N."""
    progress = Progress()
    progress({"event": "sweep.started", "cells": 1})
    progress({"event": "cell.finished", "cell": "a", "status": "infeasible", "reason": "why"})
    progress({"event": "cell.started", "cell": "b"})
    assert "[1/1] b" in capsys.readouterr().out


def test_what_was_not_put_back_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A change that is left on the GPU does not stand in a file only."""
    Progress()({"event": "run.not_undone", "problem": "MIG mode on GPU 0: it has instances"})
    said = capsys.readouterr().out
    assert "not put back: MIG mode on GPU 0" in said
    assert "fairshare clean" in said
