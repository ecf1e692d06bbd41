"""Installing a simulated GPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fairshare.devices.constants import gpu_names
from fairshare.errors import SpecError
from fairshare.virtual.driver import install
from fairshare.virtual.state import STATE_ENV, changing_state, gpu_facts, read_state


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


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    """A file format that we do not know is not guessed at."""
    (tmp_path / "state.json").write_text('{"format_version": 99}')
    with pytest.raises(ValueError, match="format version"):
        read_state(tmp_path)
