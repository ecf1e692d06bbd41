"""SIGKILL of a run with real vLLM servers on the CPU: engines, ports and shared memory go too."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fairshare.errors import PreflightError
from fairshare.processes.segments import existing as segments
from fairshare.processes.segments import held_by
from fairshare.serving.interpreter import engine_python
from fairshare.spec.loading import load_launcher
from tests.chaos.stage import staged
from tests.chaos.tally import TALLY

pytestmark = [pytest.mark.vllm_cpu, pytest.mark.timeout(200)]


@pytest.mark.parametrize(
    ("moment", "reaper"),
    [
        ("server.starting", False),
        ("cell.started", True),
        pytest.param("server.starting", True, marks=pytest.mark.full),
        pytest.param("server.ready", False, marks=pytest.mark.full),
        pytest.param("cell.started", False, marks=pytest.mark.full),
        pytest.param("cell.finished", False, marks=pytest.mark.full),
    ],
)
def test_real_engines_do_not_outlive_a_killed_run(
    cache_dir: Path, moment: str, reaper: bool
) -> None:
    """Killed while an engine starts, serves or ends, a run leaves no engine and no segment."""
    try:
        python = engine_python(load_launcher("vllm-cpu")[0])
    except PreflightError as error:
        pytest.skip(f"vLLM is not installed here: {error.message}")
    with staged(cache_dir) as stage:
        arguments = stage.matrix("logical")
        arguments[arguments.index("virtual")] = "cpu"
        run = stage.begin(*arguments, "--model", "tiny", "--python", python)
        stage.wait_event(run, moment, patience_s=120)
        stage.kill(run, reaper=reaper)
        ours = held_by(process.pid for process in stage.watched)
        started_s = time.monotonic()
        if reaper:
            assert stage.clean().returncode == 0
        stage.wait_restored()
        took_s = time.monotonic() - started_s
        assert not ours & segments()
        TALLY.add("run with real vLLM killed", f"{moment}, reaper killed: {reaper}", took_s)
