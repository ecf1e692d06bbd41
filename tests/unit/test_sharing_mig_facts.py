"""What is asked of a GPU's MIG before a run is planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare import users
from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.sharing.mig_facts import ask_facts
from fairshare.spec.launcher import DeviceKind

GPU = Device(DeviceKind.CUDA, "GPU-1", "NVIDIA H200", 1, index=0, mig_capable=True)
SMI = """#!/bin/sh
case "$*" in
  *--query-gpu=name*) echo "NVIDIA H200";;
  *--query-gpu=mig*) echo "Disabled, Disabled";;
  *) echo "Failed to display GPU instance profiles: Insufficient Permissions"; exit 4;;
esac
"""


def program(folder: Path, name: str, text: str) -> None:
    """Put a program on the PATH."""
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(("code", "hindered"), [(0, False), (1, True)])
async def test_whom_sudo_does_not_let_is_hindered(
    code: int, hindered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sudo is asked whether it would, and nothing is done; the profiles are the model's."""
    program(tmp_path, "nvidia-smi", SMI)
    program(tmp_path, "sudo", f'#!/bin/sh\n[ "$1 $2" = "-n -l" ] || exit 9\nexit {code}\n')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(users, "has_root", lambda: False)
    facts = await ask_facts(GPU, Driver())
    assert (facts.hindrance is not None) is hindered
    assert facts.table is not None
    assert not facts.enabled


async def test_a_driver_that_does_not_answer_is_a_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without nvidia-smi nothing can be changed; the model's table still serves emulation."""
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = await ask_facts(GPU, Driver())
    assert "nvidia-smi cannot be run" in str(facts.hindrance)
    assert facts.table is not None
