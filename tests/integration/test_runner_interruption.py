"""Stopped, stopped at once, killed: the results of complete cells stay, nothing else does."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from tests.workplace import Workplace

Wait = Callable[[Popen[str], str], str]
CLEAN_WITHIN_S = 10.0
SWEEP = ("matrix", "brief.yaml", "--modes", "logical,mps,mig", "--output-dir", "out", "--no-report")


@pytest.fixture
def long_second_cell(workplace: Workplace) -> Workplace:
    """A workplace whose sweep has a window long enough to be interrupted."""
    text = (workplace.path / "brief.yaml").read_text()
    workplace.write("brief.yaml", text.replace("window_s: 1", "window_s: 4"))
    return workplace


def test_ctrl_c_ends_the_cell_and_can_be_resumed(
    long_second_cell: Workplace, wait_for: Wait
) -> None:
    """Exit code 130, the command to go on, nothing left; the resumed run completes the matrix."""
    place = long_second_cell
    run = place.start(*SWEEP)
    wait_for(run, "[1/3]")
    wait_for(run, "server feed ready")
    run.send_signal(signal.SIGINT)
    rest = run.communicate(timeout=60)[0]
    assert run.returncode == 130, rest
    assert "--output-dir out --no-report --resume" in rest
    assert place.leftovers() == []
    done = [cell for cell in place.cells("out").values() if cell.result.status.value == "ok"]
    resumed = place.run(*SWEEP, "--resume")
    assert resumed.returncode == 0, resumed.stdout
    cells = place.cells("out")
    assert {cell.result.status.value for cell in cells.values()} == {"ok"}
    assert len(cells) == 3
    for cell in done:
        assert cells[cell.result.key.slug].result.started_at == cell.result.started_at


def test_ctrl_c_does_not_wait_for_a_server_to_start(workplace: Workplace, wait_for: Wait) -> None:
    """A server that takes its time is not waited for; what was started of it is ended."""
    launcher = workplace.fake_launcher(behaviour="never_ready")
    run = workplace.start(
        "matrix", "brief.yaml", "--device", "cpu", "--launcher", launcher, "--model", "tiny",
        "--modes", "logical", "--output-dir", "out", "--no-report",
    )  # fmt: skip
    wait_for(run, "logical-")
    run.send_signal(signal.SIGINT)
    rest = run.communicate(timeout=60)[0]
    assert run.returncode == 130, rest
    assert "not ready" not in rest  # the launcher's ready_timeout_s did not have to pass
    assert "--resume" in rest


def test_ctrl_c_twice_stops_at_once(long_second_cell: Workplace, wait_for: Wait) -> None:
    """The second Ctrl-C kills the servers; still everything is put back."""
    place = long_second_cell
    run = place.start(*SWEEP)
    wait_for(run, "server feed ready")
    run.send_signal(signal.SIGINT)
    wait_for(run, "stopping")
    run.send_signal(signal.SIGINT)
    rest = run.communicate(timeout=60)[0]
    assert run.returncode == 130, rest
    assert "Traceback" not in rest
    assert place.leftovers() == []


@pytest.mark.parametrize("moment", ["server chat ready", "server feed ready"])
def test_a_killed_run_leaves_complete_cells_and_nothing_else(
    long_second_cell: Workplace, wait_for: Wait, moment: str
) -> None:
    """After SIGKILL the reaper clears everything away within seconds; --resume goes on."""
    place = long_second_cell
    run = place.start(*SWEEP)
    wait_for(run, moment)
    run.kill()
    run.communicate()
    deadline_s = time.monotonic() + CLEAN_WITHIN_S
    while (left := place.leftovers()) and time.monotonic() < deadline_s:
        time.sleep(0.05)  # the reaper is nobody's child: there is no event to wait for
    assert left == []
    first = place.cells("out")["brief_logical_c1_r1"]
    assert first.result.status.value == "ok"
    assert list(first.records())
    resumed = place.run(*SWEEP, "--resume")
    assert resumed.returncode == 0, resumed.stdout
    cells = place.cells("out")
    assert {cell.result.status.value for cell in cells.values()} == {"ok"}
    assert cells["brief_logical_c1_r1"].result.started_at == first.result.started_at


@pytest.fixture
def small_disk(workplace: Workplace) -> Iterator[Path]:
    """A file system of 32 MiB, enough to begin with."""
    disk = workplace.path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_stops_the_sweep_with_its_results(
    workplace: Workplace, small_disk: Path, wait_for: Wait
) -> None:
    """Exit code 5 and what to do; complete cells stay readable."""
    running = workplace.start(
        "matrix", "brief.yaml", "--modes", "logical,mps,mig", "--concurrency", "16,8,4",
        "--output-dir", str(small_disk / "out"), "--no-report",
    )  # fmt: skip
    wait_for(running, "[1/9]")
    free = shutil.disk_usage(small_disk).free
    left = 4 << 20  # less than a sweep wants to end well, more than its cells write meanwhile
    (small_disk / "others").write_bytes(bytes(free - left))  # somebody else's file
    said = running.communicate(timeout=60)[0]
    assert running.returncode == 5, said
    assert "are left on the disk" in said
    assert "--resume" in said
    assert "Traceback" not in said
    complete = [cell for cell in workplace.cells("disk/out").values() if cell.complete]
    assert complete
    for cell in complete:
        assert all(record.id for record in cell.records())


def test_two_runs_do_not_share_a_device(workplace: Workplace, wait_for: Wait) -> None:
    """The second is refused and told who holds the device; so is one into the same folder."""
    launcher = workplace.fake_launcher(ttft_ms=5)
    command = (
        "matrix", "brief.yaml", "--device", "cpu", "--launcher", launcher, "--model", "tiny",
        "--modes", "logical", "--window", "60s", "--no-report", "--output-dir",
    )  # fmt: skip
    first = workplace.start(*command, "one")
    wait_for(first, "server all ready")
    second = workplace.run(*command, "two")
    virtual = ("--device", "virtual", "--launcher", "virtual", "--model", "qwen3-0.6b")
    elsewhere = workplace.run(*command, "one", *virtual)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert second.returncode == 4, second.stdout
    assert str(first.pid) in second.stdout
    assert elsewhere.returncode == 2, elsewhere.stdout
    assert "another run writes into one" in elsewhere.stdout
