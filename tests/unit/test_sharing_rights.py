"""Driver changes are privileged, and nothing else is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fairshare.devices.driver import STATE_VARIABLE
from fairshare.sharing.tools import Answer, run_tool

REFUSED = "echo 'sudo: a password is required'; exit 1"
TOOL = "echo changed by $0 $1"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH, with a driver tool in it, for a user who is not root."""
    monkeypatch.setattr(os, "getresuid", lambda: (1000, 1000, 1000))
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    _program(tmp_path, "tool", TOOL)
    return tmp_path


def _program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o700)


async def _change(path: Path, privileged: bool = True, **env: str) -> Answer:
    return await run_tool(
        [str(path / "tool"), "on"],
        {"PATH": f"{path}:/usr/bin:/bin", **env},
        timeout_s=5,
        privileged=privileged,
    )


async def test_a_user_changes_the_driver_through_sudo(path: Path) -> None:
    """The prefix asks no password, and the answer names the command itself."""
    _program(path, "sudo", 'echo "sudo $1 $2"; shift 2; exec "$@"')
    answer = await _change(path)
    assert answer.lines == ["sudo -n --", f"changed by {path}/tool on"]
    assert answer.argv == (f"{path}/tool", "on")
    assert (await _change(path, privileged=False)).lines == [f"changed by {path}/tool on"]


async def test_a_user_whom_sudo_refuses_tries_as_he_is(path: Path) -> None:
    """File permissions may allow what sudo does not."""
    _program(path, "sudo", REFUSED)
    assert (await _change(path)).lines == [f"changed by {path}/tool on"]


async def test_what_the_tool_itself_refuses_is_not_tried_again(path: Path) -> None:
    """A failure of the tool run as root is the answer."""
    _program(path, "sudo", 'shift 2; exec "$@"')
    _program(path, "tool", f"echo once >> {path}/runs; echo Insufficient Permissions; exit 1")
    answer = await _change(path)
    assert (answer.returncode, answer.lines) == (1, ["Insufficient Permissions"])
    assert (path / "runs").read_text() == "once\n"


async def test_neither_root_nor_a_simulated_gpu_needs_sudo(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root has the rights, and a simulated GPU is the user's own files."""
    _program(path, "sudo", "echo asked; exit 0")
    assert (await _change(path, **{STATE_VARIABLE: "/some/folder"})).lines != ["asked"]
    assert (await _change(path)).lines == ["asked"]
    monkeypatch.setattr(os, "getresuid", lambda: (0, 0, 0))
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert (await _change(path)).lines != ["asked"]
