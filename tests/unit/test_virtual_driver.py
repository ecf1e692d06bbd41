"""Installing a simulated GPU."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fairshare.devices.constants import gpu_names
from fairshare.devices.inventory import virtual_device
from fairshare.errors import PreflightError, SpecError
from fairshare.virtual.driver import DRIVER_ENV, install, switch_on
from fairshare.virtual.failing import FAIL_ENV
from fairshare.virtual.state import (
    STATE_ENV,
    DamagedStateError,
    changing_state,
    gpu_facts,
    read_state,
)

INSTANCE = ("gi", "profile", "profile_id", "ci_profile_id", "start", "size", "cis")


@pytest.mark.parametrize("name", gpu_names())
def test_every_known_gpu_can_be_simulated(tmp_path: Path, name: str) -> None:
    """Each GPU of the catalogue installs, idle and with plausible facts."""
    env = install(tmp_path / "gpu", name)
    state = read_state(tmp_path / "gpu")
    facts = gpu_facts(state)
    assert env[STATE_ENV] == str(tmp_path / "gpu")
    assert facts.peak_flops > 1e13
    assert facts.bandwidth_bytes_s > 1e11
    assert state["instances"] == []


def test_programs_come_first_on_path(tmp_path: Path) -> None:
    """The stand-ins are found before any real driver tool, and run by their owner alone."""
    env = install(tmp_path, "NVIDIA H200")
    first = Path(env["PATH"].split(os.pathsep)[0])
    programs = {path.name: path.stat().st_mode & 0o777 for path in first.iterdir()}
    assert programs == {"nvidia-smi": 0o700, "nvidia-cuda-mps-control": 0o700}
    assert read_state(tmp_path)["gpu"]["name"] == "NVIDIA H200"


def test_unknown_gpu_is_refused(tmp_path: Path) -> None:
    """A GPU that nobody knows is a mistake in the input."""
    with pytest.raises(SpecError, match="no GPU named"):
        install(tmp_path, "a1000")


def test_changes_are_kept_even_when_the_block_fails(tmp_path: Path) -> None:
    """A command that fails half-way leaves what it did, as the real driver does."""
    install(tmp_path, "a100-40")
    with pytest.raises(RuntimeError), changing_state(tmp_path) as state:
        state["compute_mode"] = "Prohibited"
        raise RuntimeError
    assert read_state(tmp_path)["compute_mode"] == "Prohibited"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"format_version": 99}', "another version of fairshare"),
        ('{"format_version": 2, "gpu": 3}', "damaged .at 'gpu'"),
        ('{"format_v', "damaged"),
        ("[]", "not fairshare's"),
    ],
)
def test_a_damaged_state_is_refused_with_the_remedy(tmp_path: Path, text: str, why: str) -> None:
    """It is not guessed at: whoever reads it is told what is wrong and how to start afresh."""
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(DamagedStateError, match=f"{why}.*rm -r {tmp_path}"):
        read_state(tmp_path)


def test_a_state_with_something_missing_is_refused(tmp_path: Path) -> None:
    """Whatever is missing is named, deep inside too."""
    install(tmp_path, "h200")
    whole = read_state(tmp_path)
    gpu = {key: value for key, value in whole["gpu"].items() if key != "uuid"}
    for place, broken in {
        "gpu.uuid": {"gpu": gpu},
        "mig_mode": {"mig_mode": {"current": "Enabled"}},
        "instances": {"instances": [{"gi": 1}]},
        "time_slice": {"time_slice": None},
    }.items():
        (tmp_path / "state.json").write_text(json.dumps({**whole, **broken}))
        with pytest.raises(DamagedStateError, match=f"at '{place}'"):
            read_state(tmp_path)


@pytest.mark.parametrize(("name", "kept"), [("a100-40", "Enabled"), ("h200", "Disabled")])
def test_a_reboot_leaves_what_a_real_one_leaves(tmp_path: Path, name: str, kept: str) -> None:
    """No instances and defaults; MIG mode survives on Ampere only, where the card stores it."""
    install(tmp_path, name)
    with changing_state(tmp_path) as state:
        state["mig_mode"] = {"current": "Enabled", "pending": "Enabled"}
        state["instances"] = [dict.fromkeys(INSTANCE)]
        state["compute_mode"], state["time_slice"] = "Prohibited", "LONG"
    assert read_state(tmp_path)["instances"]
    with changing_state(tmp_path) as state:
        state["boot_id"] = "another boot"
    after = read_state(tmp_path)
    assert after["mig_mode"] == {"current": kept, "pending": kept}
    assert (after["instances"], after["compute_mode"], after["time_slice"]) == (
        [],
        "Default",
        "DEFAULT",
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the simulated GPU is to live."""
    monkeypatch.setenv(STATE_ENV, str(tmp_path / "gpu"))
    return tmp_path / "gpu"


def test_switched_on_again_it_is_as_it_was(folder: Path) -> None:
    """The same GPU, with what was changed on it, and its programs are not written anew."""
    device = virtual_device("h200")
    switch_on(device)
    with changing_state(folder) as state:
        state["compute_mode"] = "Prohibited"
    before, written = read_state(folder), (folder / "bin" / "nvidia-smi").stat()
    switch_on(device)
    assert read_state(folder) == before
    assert (folder / "bin" / "nvidia-smi").stat().st_ino == written.st_ino


def test_a_folder_with_another_gpu_is_refused(folder: Path) -> None:
    """It is neither used nor overwritten."""
    switch_on(virtual_device("h200"))
    with pytest.raises(SpecError, match="holds a simulated NVIDIA H200"):
        switch_on(virtual_device("l4"))
    assert read_state(folder)["gpu"]["name"] == "NVIDIA H200"


def test_a_run_on_a_damaged_gpu_says_what_to_do(folder: Path) -> None:
    """A preflight error with the command that helps."""
    switch_on(virtual_device("h200"))
    (folder / "state.json").write_text("{")
    with pytest.raises(PreflightError, match="damaged") as raised:
        switch_on(virtual_device("h200"))
    assert raised.value.hint == f"throw it away: rm -r {folder}"


def test_the_driver_version_can_be_chosen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a new GPU and, as with a new driver, for one that is there; nonsense is refused."""
    monkeypatch.setenv(DRIVER_ENV, "550.163.01")
    switch_on(virtual_device("h200"))
    assert read_state(folder)["gpu"]["driver_version"] == "550.163.01"
    monkeypatch.setenv(DRIVER_ENV, "575.51.03")
    switch_on(virtual_device("h200"))
    assert read_state(folder)["gpu"]["driver_version"] == "575.51.03"
    monkeypatch.setenv(DRIVER_ENV, "new")
    with pytest.raises(SpecError, match="no driver version"):
        switch_on(virtual_device("h200"))


def test_a_misspelt_knob_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a test of a failure would pass because nothing fails."""
    monkeypatch.setenv(FAIL_ENV, "mig_pending=disable,mig_in_usee")
    with pytest.raises(SpecError, match="mig_in_usee"):
        switch_on(virtual_device("h200"))
    monkeypatch.setenv(FAIL_ENV, "mig_pending=disable")
    switch_on(virtual_device("h200"))
    (folder / "fail").write_text("smi_hung:1")
    with pytest.raises(SpecError, match="smi_hung"):
        switch_on(virtual_device("h200"))


def test_a_gpu_that_cannot_be_made_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that cannot be written is told with the variable that names another."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FAIRSHARE_VIRTUAL_GPU", str(tmp_path / "file" / "gpu"))
    with pytest.raises(PreflightError, match="cannot be made in") as caught:
        switch_on(virtual_device("h200"))
    assert "FAIRSHARE_VIRTUAL_GPU" in (caught.value.hint or "")
