"""The tests that need an NVIDIA GPU, rehearsed on stand-ins of its driver."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.workplace import ROOT


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_gpu_tests_pass_on_stand_ins() -> None:
    """What a GPU is to be tested with runs to its end; nothing is left out."""
    tests = [sys.executable, "-m", "pytest", "-q", "tests/gpu", "--rehearse", "--allow-gpu-changes"]
    done = subprocess.run(tests, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
