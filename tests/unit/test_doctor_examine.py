"""All checks together: bounded, unbreakable, and only what matters."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fairshare.doctor import examine as examining
from fairshare.doctor.examine import examine
from fairshare.doctor.finding import Finding, Level, failures, ok, warn, worst
from tests.doctor_cases import intent


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("FAIRSHARE_LOCK_DIR", str(tmp_path / "locks"))


def test_a_check_that_hangs_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wedged driver costs the bound and no more, and is told as such."""
    release = threading.Event()
    monkeypatch.setattr(examining.host, "gather", lambda _: release.wait())
    started_s = time.monotonic()
    found = examine(intent("virtual"), bound_s=0.5)
    assert time.monotonic() - started_s < 5
    release.set()
    (line,) = [finding for finding in found if finding.name == "host"]
    assert line.level is Level.FAIL
    assert "no answer within 0.5 s" in line.says


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of the doctor's never hides what the other checks say."""

    def broken(_: Any) -> Any:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(examining.host, "gather", broken)
    found = examine(intent("virtual"))
    first = failures(found)[0]
    assert first.name == "host"
    assert first.says == "this could not be examined: ZeroDivisionError: oops"
    assert len(found) > 5


def test_without_a_gpu_nothing_of_a_gpu_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU no driver, MIG or MPS can stand against a run."""
    monkeypatch.setenv("PATH", "/nowhere")
    names = {finding.name for finding in examine(intent("cpu", model="tiny"))}
    assert not {name for name in names if name.startswith(("gpu", "mig", "mps", "nvidia"))}


def test_the_worst_level_counts() -> None:
    """Nothing at all is fine, and a failure outweighs every reservation."""
    bad = Finding("x", Level.FAIL, "broken", "mend it")
    assert worst([]) is Level.OK
    assert worst([ok("a", "fine"), warn("b", "hm", "try")]) is Level.WARN
    assert worst([bad, warn("b", "hm", "try")]) is Level.FAIL
