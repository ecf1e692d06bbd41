"""Under sudo nothing that a run starts or writes is root's."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairshare.processes.identity import identify, wait_gone
from fairshare.processes.labelled import environment_of
from fairshare.processes.table import all_pids

NOBODY = pwd.getpwnam("nobody")
ROOT = Path(__file__).resolve().parents[2]
LOOK = """
import asyncio, os, sys
from pathlib import Path
from fairshare import assets, users
from fairshare.events import EventLog
from fairshare.processes.scope import run_scope
from fairshare.processes.spawn import ManagedProcess
from fairshare.processes.table import command_line, snapshot
from fairshare.sharing.tools import run_tool

WHO = [sys.executable, "-c", "import os; print(os.getresuid(), os.getresgid(), os.getgroups())"]

async def main():
    users.step_back()
    log = Path("server.log")
    async with run_scope(EventLog()) as scope:
        # Fails, and so keeps the journal, unless it has root's rights.
        scope.journal.intend("change", [[*WHO[:2], "import os; os._exit(os.geteuid() != 0)"]])
        env = dict(os.environ)
        process = await ManagedProcess.spawn("a", WHO, env=env, log_path=log, scope=scope)
        await process.wait()
        print("server", log.read_text().strip())
        for privileged in (False, True):
            answer = await run_tool(WHO, env, timeout_s=20, privileged=privileged)
            print("tool", privileged, answer.output.strip())
        owners = [path.stat().st_uid for path in (log, scope.private_dir)]
        print("owners", owners, scope.journal.path.parent == assets.state_path() / "runs")
        print("hold", flush=True)
        if sys.argv[1:2] == ["killed"]:
            child = "import signal; print('x', flush=True); signal.pause()"
            await ManagedProcess.spawn(
                "b", [sys.executable, "-c", child], env=env, log_path=log, scope=scope
            )
            print(scope.private_dir, scope.journal.path, flush=True)
            if sys.argv[2:] == ["with its reaper"]:
                children = [row.pid for row in snapshot().values() if row.ppid == os.getpid()]
                with users.as_root():
                    for pid in children:
                        if "fairshare.processes.reaper" in command_line(pid):
                            os.kill(pid, 9)
            os.kill(os.getpid(), 9)

asyncio.run(main())
"""


def _runs(python: str, path: str) -> bool:
    """Whether the user nobody can run fairshare with this Python."""
    done = subprocess.run(
        [python, "-c", "import fairshare.processes.scope, orjson"],
        env={"PYTHONPATH": path},
        user="nobody",
        group=NOBODY.pw_gid,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@pytest.fixture
def place() -> Iterator[tuple[str, dict[str, str], Path]]:
    """A Python that the user nobody may run, the environment that sudo gives, and a folder."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as if called by sudo")
    path = os.pathsep.join([str(ROOT), *(p for p in sys.path if p.endswith("site-packages"))])
    major_minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [sys.executable, shutil.which(major_minor, path="/usr/bin") or sys.executable]
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        python = next((each for each in candidates if _tried(each, path)), None)
        if python is None:
            pytest.skip("the user nobody may not read this installation")
        os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
        env = {
            "PATH": os.defpath,
            "PYTHONPATH": path,
            "SUDO_UID": str(NOBODY.pw_uid),
            "SUDO_GID": str(NOBODY.pw_gid),
            "FAIRSHARE_STATE_DIR": str(folder / "state"),
        }
        (folder / "state").mkdir(mode=0o700)
        yield python, env, folder
    finally:
        shutil.rmtree(folder)


def _tried(python: str, path: str) -> bool:
    try:
        return _runs(python, path)
    except PermissionError:
        return False


def test_what_a_run_starts_and_writes_is_the_users(
    place: tuple[str, dict[str, str], Path],
) -> None:
    """Servers and tools have none of root's ids; only a change of the driver and its undo do."""
    python, env, folder = place
    done = subprocess.run(
        [python, "-c", LOOK], env=env, cwd=folder, capture_output=True, text=True, check=False
    )
    uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
    ids = f"({uid}, {uid}, {uid}) ({gid}, {gid}, {gid})"
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"server {ids}"), done.stderr
    assert lines[1].startswith(f"tool False {ids}")
    assert lines[2] == "tool True (0, 0, 0) (0, 0, 0) []"
    assert lines[3] == f"owners [{uid}, {uid}] True"
    assert (folder / "state" / "runs").stat().st_uid == 0
    assert list((folder / "state" / "runs").iterdir()) == []


def test_a_killed_run_is_cleaned_up_with_roots_rights(
    place: tuple[str, dict[str, str], Path],
) -> None:
    """The reaper can read root's journal and end the user's processes."""
    python, env, folder = place
    done = subprocess.run(
        [python, "-c", LOOK, "killed"],
        env=env,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )  # returns once the last holder of its output, the server, is gone
    assert done.returncode == -9
    private_dir, journal = map(Path, done.stdout.splitlines()[-1].split())
    state = env["FAIRSHARE_STATE_DIR"]
    left = [pid for pid in all_pids() if environment_of(pid).get("FAIRSHARE_STATE_DIR") == state]
    assert wait_gone(filter(None, map(identify, left)), 20) == []
    assert not private_dir.exists()
    assert not journal.exists()


def test_root_itself_cleans_up_after_a_run_under_sudo(
    place: tuple[str, dict[str, str], Path],
) -> None:
    """At boot, and where a service has ended, nobody called sudo; the user's folder goes too."""
    python, env, folder = place
    done = subprocess.run(
        [python, "-c", LOOK, "killed", "with its reaper"],
        env=env,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    private_dir, journal = map(Path, done.stdout.splitlines()[-1].split())
    assert private_dir.exists()
    cleaned = subprocess.run(
        [sys.executable, "-m", "fairshare", "clean"],
        env={name: value for name, value in env.items() if not name.startswith("SUDO_")},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert cleaned.returncode == 0, cleaned.stdout
    assert not private_dir.exists()
    assert not journal.exists()
