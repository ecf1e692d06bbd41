"""The stand-in nvidia-smi made to fail: each knob, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fairshare.virtual import nvidia_smi
from fairshare.virtual.driver import install
from fairshare.virtual.failing import FAIL_FILE
from fairshare.virtual.processes import open_client
from fairshare.virtual.state import STATE_ENV, read_state

Smi = Callable[..., tuple[int, list[str]]]
BUS = "00000000:07:00.0"
USED = "In use by another client"


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A simulated A100-40 with MIG on and a half of it taken."""
    install(tmp_path, "a100-40")
    monkeypatch.setenv(STATE_ENV, str(tmp_path))
    for command in (["-mig", "1"], ["mig", "-cgi", "9", "-C"]):
        assert nvidia_smi.main(command) == 0
    return tmp_path


@pytest.fixture
def smi(gpu: Path, capsys: pytest.CaptureFixture[str]) -> Smi:
    """Runs the stand-in with knobs in the GPU's folder; exit status and lines."""
    capsys.readouterr()

    def run(command: str, knobs: str = "") -> tuple[int, list[str]]:
        (gpu / FAIL_FILE).write_text(knobs)
        status = nvidia_smi.main(command.split())
        return int(status), capsys.readouterr().out.splitlines()

    return run


def empty(smi: Smi) -> None:
    """Take the instances away."""
    assert smi("mig -dci")[0] == smi("mig -dgi")[0] == 0


def modes(gpu: Path) -> tuple[str, str]:
    """MIG mode, current and pending."""
    mode = read_state(gpu)["mig_mode"]
    return mode["current"], mode["pending"]


@pytest.mark.parametrize(
    ("knob", "first", "reset"),
    [
        ("mig_pending", "Not Supported", 3),
        ("mig_in_use", USED, 255),
        ("mig_timeout", "Timeout", 0),
    ],
)
def test_a_mode_change_stays_pending(
    gpu: Path, smi: Smi, knob: str, first: str, reset: int
) -> None:
    """With "All done." and status 0, as NVIDIA's guide shows it; a reset helps or does not."""
    empty(smi)
    status, lines = smi("-mig 0", knob)
    assert (status, lines[-1]) == (0, "All done.")
    assert lines[0] == f"Warning: MIG mode is in pending disable state for GPU {BUS}:{first}"
    assert modes(gpu) == ("Enabled", "Disabled")
    assert smi("--gpu-reset -i 0", knob)[0] == reset
    assert modes(gpu) == ("Disabled" if reset == 0 else "Enabled", "Disabled")


def test_a_knob_can_be_for_one_direction_alone(gpu: Path, smi: Smi) -> None:
    """Enabling works, disabling stays pending: the way in is free and the way back is not."""
    empty(smi)
    assert smi("-mig 0", "mig_pending=enable")[1][0] == f"Disabled MIG Mode for GPU {BUS}"
    assert smi("-mig 1", "mig_pending=disable")[1][0] == f"Enabled MIG Mode for GPU {BUS}"
    assert "pending disable" in smi("-mig 0", "mig_pending=disable")[1][0]
    assert modes(gpu) == ("Enabled", "Disabled")


def test_a_mode_that_lies(gpu: Path, smi: Smi) -> None:
    """It says "Disabled" and is not."""
    empty(smi)
    assert smi("-mig 0", "mode_lies") == (0, [f"Disabled MIG Mode for GPU {BUS}", "All done."])
    assert modes(gpu) == ("Enabled", "Enabled")


@pytest.mark.parametrize(
    ("command", "knob", "answer"),
    [
        ("mig -cgi 9 -C", "cgi_no_permission",
         (4, "Failed to create GPU instances: Insufficient Permissions")),
        ("mig -cgi 9 -C", "cgi_insufficient",
         (23, "Failed to create GPU instances: Insufficient Resources")),
        ("mig -dci", "dci_in_use",
         (19, f"Failed to destroy compute instances: {USED}")),
        ("mig -lci", "list_no_permission",
         (4, "Failed to display compute instances: Insufficient Permissions")),
        ("-mig 0", "mig_no_permission",
         (4, f"Unable to disable MIG Mode for GPU {BUS}: Insufficient Permissions")),
        ("-c 3", "compute_mode_no_permission",
         (4, "Terminating early due to previous errors.")),
        ("compute-policy --set-timeslice 3 -i 0", "timeslice_no_permission",
         (4, "Failed to set timeslice policy with value LONG for GPU 0 : "
             "Insufficient Permissions")),
    ],
)  # fmt: skip
def test_what_is_refused_changes_nothing(
    gpu: Path, smi: Smi, command: str, knob: str, answer: tuple[int, str]
) -> None:
    """NVIDIA's words and status, and the GPU is as it was."""
    before = read_state(gpu)
    status, lines = smi(command, knob)
    assert (status, lines[-1]) == answer
    assert read_state(gpu) == before


def test_half_an_instance_is_left(gpu: Path, smi: Smi) -> None:
    """The GPU instance is there, its compute instance is not; ``-cci`` can make it later."""
    status, lines = smi("mig -cgi 14 -C", "cgi_partial")
    assert status == 23
    assert lines[-2:] == [
        "Unable to create a default compute instance on GPU  0 GPU instance ID  3: "
        "Insufficient Resources",
        "Failed to create compute instances: Insufficient Resources",
    ]
    assert [len(i["cis"]) for i in read_state(gpu)["instances"]] == [1, 0]
    assert smi("mig -cci -gi 3") == (
        0,
        [
            "Successfully created compute instance ID  0 on GPU  0 GPU instance ID  3 using "
            "profile MIG 2g.10gb (ID  1)"
        ],
    )
    assert smi("mig -cci -gi 3")[0] == 23
    assert smi("mig -cgi 14:x")[0] == 2


def test_a_destruction_that_lies_or_is_refused(gpu: Path, smi: Smi) -> None:
    """It says success and the instance stays, for as often as asked."""
    done = "Successfully destroyed compute instance ID  0 from GPU  0 GPU instance ID  2"
    assert smi("mig -dci", "dci_lies:1") == (0, [done])
    assert smi("mig -lci")[0] == 0
    assert smi("mig -dci") == (0, [done])
    assert smi("mig -dgi", "dgi_in_use")[0] == 19
    assert smi("mig -dgi", "dgi_lies")[0] == 0
    assert len(read_state(gpu)["instances"]) == 1
    assert smi("mig -dgi")[0] == 0
    assert read_state(gpu)["instances"] == []


@pytest.mark.parametrize(
    ("knob", "mode"), [("smi_hang=-mig", "Enabled"), ("smi_hang_after=-mig:1", "Disabled")]
)
def test_a_tool_that_hangs_ends_when_killed(gpu: Path, smi: Smi, knob: str, mode: str) -> None:
    """Before its work or after it; other commands answer."""
    empty(smi)
    (gpu / FAIL_FILE).write_text(knob)
    program = str(gpu / "bin" / "nvidia-smi")
    assert subprocess.run([program, "-L"], capture_output=True, check=True).stdout
    hanging = subprocess.Popen([program, "-mig", "0"], stdout=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        hanging.wait(timeout=0.7)
    hanging.send_signal(signal.SIGTERM)
    hanging.communicate()
    assert hanging.returncode == -signal.SIGTERM
    assert modes(gpu)[0] == mode


def test_a_damaged_gpu_is_an_error_and_no_traceback(gpu: Path, smi: Smi) -> None:
    """The tool says which folder to throw away, and so does it when there is none."""
    del smi
    program = str(gpu / "bin" / "nvidia-smi")
    for text in ("{", '{"format_version": 1}', None):
        if text is None:
            (gpu / "state.json").unlink()
        else:
            (gpu / "state.json").write_text(text)
        done = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
        assert done.returncode == 255
        assert str(gpu) in done.stderr
        assert "Traceback" not in done.stderr


def test_instances_keep_the_mode_on(gpu: Path, smi: Smi) -> None:
    """As long as one is there, disabling MIG stays pending."""
    assert "pending disable state" in smi("-mig 0")[1][0]
    assert modes(gpu) == ("Enabled", "Disabled")
    empty(smi)
    smi("-mig 0")
    assert modes(gpu) == ("Disabled", "Disabled")


def test_a_reset_needs_everybody_gone(gpu: Path, smi: Smi) -> None:
    """An open NVML session keeps it off, with NVIDIA's words; then it leaves no instance."""
    note = open_client(gpu)
    status, lines = smi("--gpu-reset -i 0")
    assert status == 255
    assert lines[0] == f"GPU {BUS} is currently in use by another process."
    note.unlink()
    assert smi("--gpu-reset -i 0") == (0, [f"GPU {BUS} was successfully reset.", "All done."])
    assert read_state(gpu)["instances"] == []
    assert modes(gpu) == ("Enabled", "Enabled")
    assert os.listdir(gpu / "nvml") == []  # noqa: PTH208
