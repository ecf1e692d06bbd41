"""What the engine, its CUDA and our own packages mean for a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairshare.doctor import packages
from fairshare.doctor.engine import EngineFacts, check, gather
from tests.doctor_cases import gpu_facts, intent, told


def facts(**changes: Any) -> EngineFacts:
    """A vLLM in order."""
    usual: dict[str, Any] = {
        "python": "/x/python",
        "version": "0.33.0",
        "torch": True,
        "torch_cuda": (13, 0),
    }
    return EngineFacts(**(usual | changes))


@pytest.mark.parametrize(
    ("changes", "name", "level"),
    [
        ({}, "engine", "ok"),
        ({"version": "0.25.1"}, "engine", "fail"),
        ({"version": "0.26.0rc1"}, "engine", "ok"),
        ({"version": None}, "engine", "ok"),
        ({"missing": "not installed", "remedy": "pip install vllm"}, "engine", "fail"),
        ({"torch_cuda": (12, 8)}, "cuda", "ok"),
        ({"torch_cuda": (13, 2)}, "cuda", "warn"),
        ({"torch_cuda": (14, 0)}, "cuda", "fail"),
        ({"torch_cuda": None}, "cuda", "fail"),
    ],
)
def test_each_shortcoming_of_an_engine_has_its_line(
    changes: dict[str, Any], name: str, level: str
) -> None:
    """Too old an engine, and a CUDA that the driver does not run, stand against a run."""
    driver = gpu_facts(cuda=(13, 0))
    assert told(check(facts(**changes), driver, intent(model="tiny")))[name] == level


def test_cuda_is_of_no_interest_on_the_cpu() -> None:
    """A torch without CUDA is right there."""
    assert set(told(check(facts(torch_cuda=None), None, intent("cpu", model="tiny")))) == {
        "engine",
        "model",
    }


def test_a_model_that_is_not_there_is_told_without_fetching_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A hub name that is in no cache is a failure with the command that fetches it."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("fairshare.doctor.engine.engine_python", lambda _: "/no/python")
    found = gather(intent("cpu", model="nobody/nothing"))
    lines = {finding.name: finding for finding in check(found, None, intent("cpu", model="n/n"))}
    assert lines["model"].level == "fail"
    assert (lines["model"].fix or "").startswith("hf download")


@pytest.mark.parametrize(
    ("versions", "level"),
    [
        ({"nvidia-ml-py": "13", "matplotlib": "3.12.1", "seaborn": "0.13.2"}, "ok"),
        ({"nvidia-ml-py": "13", "matplotlib": "3.13.0", "seaborn": "0.13.2"}, "warn"),
        ({"nvidia-ml-py": "13", "pynvml": "13.0"}, "warn"),
        ({"matplotlib": "3.12.1"}, "warn"),
    ],
)
def test_packages_that_are_known_to_break_are_told(versions: dict[str, str], level: str) -> None:
    """The pins that matter are looked at, and each is mended by one line."""
    assert told(packages.check(packages.PackageFacts(versions), intent())) == {"packages": level}
