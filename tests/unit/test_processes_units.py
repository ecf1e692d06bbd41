"""The systemd units that finish what a run left."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fairshare import users
from fairshare.processes.units import boot_unit


def test_the_unit_cleans_the_same_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It runs this installation by absolute path and with the folders that this shell uses."""
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(tmp_path / "my 100% state"))
    monkeypatch.delenv("FAIRSHARE_LOCK_DIR", raising=False)
    lines = boot_unit().splitlines()
    assert f"ExecStart={sys.executable} -m fairshare clean" in lines
    assert f"#   ExecStopPost={sys.executable} -m fairshare clean" in lines
    assert f'Environment="FAIRSHARE_STATE_DIR={tmp_path}/my 100%% state"' in lines
    assert not [line for line in lines if "LOCK_DIR" in line]


def test_the_unit_names_the_state_folder_also_where_nobody_did(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At boot there is no shell: root's journals are found where root's runs put them."""
    monkeypatch.delenv("FAIRSHARE_STATE_DIR", raising=False)
    monkeypatch.setattr(users, "has_root", lambda: True)
    assert "Environment=FAIRSHARE_STATE_DIR=/var/lib/fairshare" in boot_unit().splitlines()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """The unit is one in which systemd finds nothing wrong."""
    unit = tmp_path / "fairshare-clean.service"
    unit.write_text(boot_unit())
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
