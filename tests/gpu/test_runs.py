"""Whole runs on a real GPU, with servers that hold a CUDA context: the GPU is left as found."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable

import pytest

from fairshare.records import CellStatus
from tests.workplace import Workplace

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("left_as_found"), pytest.mark.timeout(600)]
Wait = Callable[[subprocess.Popen[str], str], str]


def _arguments(launcher: str, modes: str, *more: str) -> tuple[str, ...]:
    return (
        *("matrix", "brief.yaml", "--device", "cuda", "--launcher", launcher, "--model", "tiny"),
        *("--modes", modes, "--output-dir", "out", "--no-report", *more),
    )


def test_every_mode_runs_and_is_verified(workplace: Workplace, launcher: str) -> None:
    """All modes that change nothing in the driver; each share was verified from inside."""
    modes = "exclusive,logical,timeslice,mps,mig"
    done = workplace.run(*_arguments(launcher, modes, "--mig", "emulated"), timeout_s=500)
    assert done.returncode == 0, done.stdout
    cells = workplace.cells("out").values()
    assert {cell.result.status for cell in cells} == {CellStatus.OK}
    labels = {cell.result.label for cell in cells}
    assert labels == {"exclusive", "logical", "timeslice", "mps", "mig-emulated"}
    for cell in cells:
        assert cell.result.provenance.value in ("measured", "emulated"), cell.result.key.slug


@pytest.mark.parametrize("modes", ["timeslice", "mps"])
def test_a_killed_run_leaves_nothing(
    workplace: Workplace, launcher: str, wait_for: Wait, modes: str
) -> None:
    """After kill -9 in the window its reaper ends servers and daemon."""
    process = workplace.start(*_arguments(launcher, modes))
    wait_for(process, "server feed ready")
    process.kill()
    process.wait()
    while workplace.leftovers():
        threading.Event().wait(0.05)


@pytest.mark.usefixtures("may_change")
def test_real_mig_instances_come_and_go(workplace: Workplace, launcher: str) -> None:
    """Instances are made, bound to by UUID and destroyed; the mode is as it was."""
    more = ("--mig", "real", "--allow-gpu-changes")
    done = workplace.run(*_arguments(launcher, "mig", *more), timeout_s=500)
    assert done.returncode == 0, done.stdout
    (cell,) = workplace.cells("out").values()
    assert cell.result.label == "mig"


@pytest.mark.usefixtures("may_change")
def test_the_time_slice_policy_is_put_back(workplace: Workplace, launcher: str) -> None:
    """The policy that was asked for holds for the run alone."""
    listing = ["nvidia-smi", "compute-policy", "--list"]
    before = subprocess.run(listing, capture_output=True, check=True).stdout
    more = ("--timeslice-policy", "long", "--allow-gpu-changes")
    done = workplace.run(*_arguments(launcher, "timeslice", *more), timeout_s=500)
    assert done.returncode == 0, done.stdout
    assert subprocess.run(listing, capture_output=True, check=True).stdout == before
