"""Child programs that behave badly, and ways to wait for what they do."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairshare.processes.identity import ProcessIdentity, identify, wait_gone
from fairshare.processes.table import command_line, snapshot

# Each tells its pid through the FIFO named by $READY once it is what it is meant to be.
_TELL = """
import os, signal, sys, time
def tell(extra=""):
    with open(os.environ["READY"], "w") as fifo:
        fifo.write(f"{os.getpid()} {extra}\\n")
def forever():
    while True:
        signal.pause()
"""
PLAIN = _TELL + "tell(); forever()"
STUBBORN = _TELL + "signal.signal(signal.SIGTERM, signal.SIG_IGN); tell(); forever()"
# A daemon: forks twice, leaves the session, ignores SIGTERM; its parent goes on or exits.
DAEMON = (
    _TELL
    + """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        tell()
        forever()
    os._exit(0)
os.wait()
if sys.argv[1:] == ["exit"]:
    sys.exit(0)
forever()
"""
)
# The same without a label: only the family tree or the session shows whose it is.
UNLABELLED_CHILD = (
    _TELL
    + """
import subprocess
keep = {"READY": os.environ["READY"]}
code = sys.argv[1]
child = subprocess.Popen([sys.executable, "-c", code], env=keep)
child.wait() if sys.argv[2:] != ["exit"] else sys.exit(0)
"""
)
SHARED_MEMORY = (
    _TELL
    + """
from multiprocessing import resource_tracker, shared_memory
memory = shared_memory.SharedMemory(create=True, size=4096)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
tell(f"{memory.name} {resource_tracker._resource_tracker._pid}")
forever()
"""
)
# A semaphore shared with spawned processes has a name in /dev/shm as long as it lives.
SEMAPHORE = (
    _TELL
    + """
import multiprocessing
from multiprocessing import resource_tracker
lock = multiprocessing.get_context("spawn").Lock()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
tell(f"sem.{lock._semlock.name[1:]} {resource_tracker._resource_tracker._pid}")
forever()
"""
)


def python(code: str, *arguments: str) -> list[str]:
    """The command that runs a child program."""
    return [sys.executable, "-c", code, *arguments]


class Ready:
    """The FIFO through which children say that they are ready."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ready"
        os.mkfifo(self.path)
        # Read and write: it never ends, however many children come and go.
        self._file = os.fdopen(os.open(self.path, os.O_RDWR), "rb", buffering=0)

    def env(self) -> dict[str, str]:
        """This process's environment and the name of the FIFO."""
        return {**os.environ, "READY": str(self.path)}

    def line(self) -> list[str]:
        """Block until a child is ready; return its words, the first of which is its pid."""
        return self._file.readline().decode().split()

    async def child(self) -> ProcessIdentity:
        """Wait for the next child to be ready; return its identity."""
        words = await asyncio.to_thread(self.line)
        identity = identify(int(words[0]))
        assert identity is not None
        return identity


OWNER = """
import asyncio, json, os, sys
from pathlib import Path
from fairshare.events import EventLog
from fairshare.processes.scope import run_scope
from fairshare.processes.spawn import ManagedProcess

async def main():
    wish = json.loads(sys.argv[1])
    async with run_scope(EventLog()) as scope:
        for step, undo in wish.get("steps", []):
            scope.journal.intend(step, undo)
        for number, code in enumerate(wish.get("children", [])):
            (scope.slot_dir(f"s{number}") / "file").write_text("x")
            await ManagedProcess.spawn(
                f"s{number}", [sys.executable, "-c", code], env=dict(os.environ),
                log_path=Path(wish["folder"]) / f"s{number}.log", scope=scope,
            )
        told = {"run_id": scope.run_id, "private_dir": str(scope.private_dir)}
        print(json.dumps(told), flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


class Owner:
    """A process that runs a `run_scope` until its standard input ends or it is killed."""

    def __init__(self, folder: Path, ready: Ready, wish: Mapping[str, Any]) -> None:
        self.process = subprocess.Popen(
            python(OWNER, json.dumps({**wish, "folder": str(folder)})),
            env=ready.env(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.run_id = str(told["run_id"])
        self.private_dir = Path(told["private_dir"])
        self.reaper = reaper_of(self.process.pid)

    def kill(self) -> None:
        """End it as the kernel's OOM killer would."""
        self.process.kill()
        self.process.wait()


def reaper_of(owner_pid: int) -> ProcessIdentity:
    """The reaper that a process has started."""
    for row in snapshot().values():
        if row.ppid == owner_pid and "fairshare.processes.reaper" in command_line(row.pid):
            identity = identify(row.pid)
            assert identity is not None
            return identity
    raise AssertionError("there is no reaper")


def assert_gone(*identities: ProcessIdentity, within_s: float = 20.0) -> None:
    """Wait for processes to end and fail if one does not."""
    assert wait_gone(identities, within_s) == []
