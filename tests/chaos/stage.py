"""A stage for killing runs on: a place of its own, a simulated GPU, and foreigners that must stay.

What has to be the same afterwards is read by `Stage.traces`: the GPU's whole state, the processes,
the temporary files, the locks and the journals of this stage.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psutil

from fairshare.processes.labelled import environment_of
from fairshare.processes.ports import is_free
from fairshare.sharing.mps_control import CONTROL, LOG_VARIABLE, PIPE_VARIABLE
from fairshare.virtual.driver import install
from fairshare.virtual.processes import in_use
from tests.workplace import ROOT, SCENARIO, Workplace, runs

GPU = "a100-40"
# The promise is ten seconds on a machine that is not busy; the tally says how many it were.
_PATIENCE_S = 25.0
_EVENT_PATIENCE_S = 120.0
_POLL_S = 0.05
# Files of the simulated driver: who uses it (dead ones do not count, see "in use"), and its lock.
_NOTES = ("servers/", "nvml/", "mps/", "state.lock")
_REAPER = "fairshare.processes.reaper"
# Not fairshare's, whatever it looks like: a name and a label as ours, and no owner that is dead.
_LOOKALIKE = "import signal; print('ready', flush=True); signal.pause()"


@dataclass
class Stage(Workplace):
    """A workplace with a simulated GPU of its own and foreigners on it."""

    foreigners: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    pipes: dict[str, Path] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    watched: list[psutil.Process] = field(default_factory=list)

    @property
    def gpu(self) -> Path:
        """The folder of the simulated GPU."""
        return Path(self.env["FAIRSHARE_VIRTUAL_GPU"])

    @property
    def output(self) -> str:
        """What the last run printed."""
        with contextlib.suppress(FileNotFoundError):
            return (self.path / "output.txt").read_text(errors="replace")
        return ""

    def matrix(self, modes: str = "mps,mig", *more: str) -> list[str]:
        """The arguments of a short sweep on the simulated GPU."""
        return [
            "matrix", "brief.yaml", "--device", "virtual", "--modes", modes,
            "--output-dir", "out", "--no-report", *more,
        ]  # fmt: skip

    def launch(self, command: list[str], **env: str) -> subprocess.Popen[bytes]:
        """Start a command whose output goes to a file, since nobody reads it before it is dead."""
        with (self.path / "output.txt").open("wb") as output:
            return subprocess.Popen(
                command,
                cwd=self.path,
                env={**self.env, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def begin(self, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        """Start fairshare."""
        return self.launch(self.command(*arguments), **env)

    def smi(self, *arguments: str) -> str:
        """Ask the simulated GPU's nvidia-smi."""
        program = str(self.gpu / "bin" / "nvidia-smi")
        done = subprocess.run(
            [program, *arguments], env=self.env, capture_output=True, text=True, check=False
        )
        return done.stdout

    def events(self) -> list[dict[str, Any]]:
        """What the run has told so far."""
        lines: list[bytes] = []
        with contextlib.suppress(FileNotFoundError):
            content = (self.path / "out" / "events.jsonl").read_bytes()
            lines = content.splitlines(keepends=True)
        return [orjson.loads(line) for line in lines if line.endswith(b"\n")]

    def doomed(self, kind: str, when: str, number: str, reaper: str, *program: str) -> list[str]:
        """The command that runs a module until it reaches a point (see `tests.chaos.doomed`)."""
        where = [kind, when, number, reaper, str(self.path / "points")]
        return [sys.executable, "-m", "tests.chaos.doomed", *where, *program]

    def points(self) -> list[str]:
        """The points that a doomed program has come to."""
        return (self.path / "points").read_text().splitlines()

    def wait_events(self, run: subprocess.Popen[bytes], count: int) -> None:
        """Return when the run has told of so many events of any kind."""
        while len(self.events()) < count:
            assert run.poll() is None, "the run ended before"
            time.sleep(0.01)  # as below

    def wait_event(
        self,
        run: subprocess.Popen[bytes],
        event: str,
        count: int = 1,
        patience_s: float = _EVENT_PATIENCE_S,
    ) -> None:
        """Return when the run has told of an event so many times."""
        deadline_s = time.monotonic() + patience_s
        while sum(each["event"] == event for each in self.events()) < count:
            assert run.poll() is None, f"the run ended before {event}:\n{self.output}"
            assert time.monotonic() < deadline_s, f"no {event}:\n{self.output}"
            time.sleep(0.01)  # the file grows in another process: there is nothing to wait on

    def kill(self, run: subprocess.Popen[bytes], *, reaper: bool) -> None:
        """SIGKILL the run, and its reaper in the same instant; remember all that it had started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(run.pid, signal.SIGSTOP)  # so that what is listed is all there is
            self.watch(run.pid)
        if reaper:
            kill_reaper(run.pid)
        run.kill()
        run.wait()

    def pids(self, name: str) -> list[int]:
        """Processes of the run that were spawned under a name and live."""
        spawned = [each for each in self.events() if each["event"] == "process.spawned"]
        found = [int(each["pid"]) for each in spawned if each["name"] == name]
        return [pid for pid in found if psutil.pid_exists(pid)]

    def watch(self, pid: int) -> None:
        """Remember everything below a process, by identity: it has to be gone in the end."""
        self.watched += psutil.Process(pid).children(recursive=True)

    def clean(self) -> subprocess.CompletedProcess[str]:
        """Run ``fairshare clean`` to its end."""
        return self.run("clean")

    def traces(self) -> dict[str, Any]:
        """Everything that must be as it was when nothing of a run is left."""
        state = self.env["FAIRSHARE_STATE_DIR"]
        return {
            "gpu": self.gpu_state(),
            "gpu in use": in_use(self.gpu),
            "gpu files": [name for name in _files(self.gpu) if not name.startswith(_NOTES)],
            "processes": _processes(state) + [str(each) for each in self.watched if runs(each)],
            "temporary files": _names(Path(self.env["TMPDIR"])),
            "journals": _names(Path(state) / "runs"),
            "locks": _names(Path(self.env["FAIRSHARE_LOCK_DIR"])),
            "locks held": _held(Path(state)) + _held(Path(self.env["FAIRSHARE_LOCK_DIR"])),
            "ports": [
                each["port"]
                for each in self.events()
                if each["event"] == "server.starting" and not is_free(each["port"])
            ],
            "half-written results": sorted(
                str(path) for path in (self.path / "out").rglob(".*") if path.is_file()
            ),
            "foreigners": self._foreigners_alive(),
        }

    def differences(self) -> list[str]:
        """What is not as it was before the run."""
        now = self.traces()
        return [
            f"{what}: was {was}, is {now[what]}"
            for what, was in self.before.items()
            if was != now[what]
        ]

    def wait_restored(self, patience_s: float = _PATIENCE_S) -> float:
        """Seconds until everything is as it was; fails if that does not come."""
        started_s = time.monotonic()
        while differences := self.differences():
            waited_s = time.monotonic() - started_s
            assert waited_s < patience_s, f"after {waited_s:.0f} s: " + "; ".join(differences)
            time.sleep(_POLL_S)  # what is waited for is nobody's child: there is no event
        return time.monotonic() - started_s

    def foreign_env(self) -> dict[str, str]:
        """The environment of somebody who does not know fairshare."""
        return {k: v for k, v in self.env.items() if not k.startswith("FAIRSHARE_")}

    def invite_daemon(self, name: str, control: Path) -> None:
        """Start a foreign MPS daemon with a control program; returns when it answers."""
        self.pipes[name] = self.path / f"pipe{len(self.pipes)}"
        self.pipes[name].mkdir(mode=0o700)
        pipe = str(self.pipes[name])
        daemon = subprocess.Popen(
            [str(control), "-f"],
            env={**self.foreign_env(), PIPE_VARIABLE: pipe, LOG_VARIABLE: pipe},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.foreigners[name] = daemon
        deadline_s = time.monotonic() + _PATIENCE_S
        while not _answers(self.pipes[name]):
            assert daemon.poll() is None, f"{control} ended at once"
            assert time.monotonic() < deadline_s, f"{control} does not answer"
            time.sleep(0.01)  # it says nothing when it is ready

    def gpu_state(self) -> Any:
        """What the simulated GPU has kept: its modes and instances."""
        return json.loads((self.gpu / "state.json").read_text())

    @staticmethod
    def is_reaper(process: psutil.Process) -> bool:
        """Whether a process is a run's reaper."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return _REAPER in process.cmdline()
        return False

    def _foreigners_alive(self) -> dict[str, bool]:
        alive = {name: process.poll() is None for name, process in self.foreigners.items()}
        return alive | {f"{name} answers": _answers(pipe) for name, pipe in self.pipes.items()}


@contextlib.contextmanager
def staged(cache_dir: Path, *, instances: tuple[int, ...] = ()) -> Iterator[Stage]:
    """A stage with foreigners; ``instances`` are profile ids of MIG instances that are theirs.

    Its path is short, so that private folders are made in it and not beside everybody's.
    """
    path = Path(tempfile.mkdtemp(prefix="fc-", dir="/tmp"))
    temporary = path / "t"
    (temporary / "fs-theirs").mkdir(parents=True)  # named as ours are, without our mark
    (temporary / "fs-theirs" / "file").touch()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("FAIRSHARE_", "CUDA_"))}
    env |= {
        "FAIRSHARE_STATE_DIR": str(path / "state"),
        "FAIRSHARE_LOCK_DIR": str(path / "locks"),
        "FAIRSHARE_CACHE_DIR": str(cache_dir),
        "FAIRSHARE_VIRTUAL_GPU": str(path / "gpu"),
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    stage = Stage(path, env)
    try:
        install(path / "gpu", GPU)
        if instances:
            stage.smi("-i", "0", "-mig", "1")
            stage.smi("mig", "-i", "0", "-cgi", ",".join(map(str, instances)), "-C")
        stage.write("brief.yaml", SCENARIO.replace("window_s: 1", "window_s: 0.5"))
        _invite(stage)
        stage.before = stage.traces()
        yield stage
    finally:
        _tidy(stage)


def _invite(stage: Stage) -> None:
    """Start the foreigners: an MPS daemon on a GPU of its own and a process that looks like ours.

    On our GPU a foreign daemon would be refused.
    """
    install(stage.path / "their-gpu", GPU)
    stage.invite_daemon("daemon", stage.path / "their-gpu" / "bin" / CONTROL)
    foreign = stage.foreign_env()
    lookalike = subprocess.Popen(
        ["fairshare-server", "-c", _LOOKALIKE, _REAPER],
        executable=sys.executable,
        env={**foreign, "FAIRSHARE_RUN": "20200101-0000-abcdef", "FAIRSHARE_SLOT": "chat/1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    stage.foreigners["lookalike"] = lookalike
    assert lookalike.stdout is not None
    assert lookalike.stdout.readline() == "ready\n"


def _tidy(stage: Stage) -> None:
    """End whatever a failed test has left, so that it does no harm to the next."""
    for process in stage.foreigners.values():
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    for pid in _pids(stage.env["FAIRSHARE_STATE_DIR"]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(stage.path, ignore_errors=True)


def kill_reaper(owner_pid: int) -> bool:
    """SIGKILL the reaper that a process has started; False if it has none."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(owner_pid).children():
            if Stage.is_reaper(child):
                child.kill()
                return True
    return False


def _answers(pipe: Path) -> bool:
    """Whether an MPS daemon takes connections in its pipe directory."""
    # NVIDIA's keeps the bounds of messages, the stand-in does not.
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as peer, contextlib.suppress(OSError):
            peer.connect(str(pipe / "control"))
            return True
    return False


def _pids(state_dir: str) -> list[int]:
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and environment_of(int(entry.name)).get("FAIRSHARE_STATE_DIR") == state_dir
    ]


def _processes(state_dir: str) -> list[str]:
    """Whatever was started for a run of this stage, with its command line."""
    found = []
    for pid in _pids(state_dir):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(f"{pid} {' '.join(psutil.Process(pid).cmdline())}")
    return found


def _names(folder: Path) -> list[str]:
    """All that a folder holds, however deep."""
    while True:
        with contextlib.suppress(FileNotFoundError):  # one vanished while we looked
            return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def _files(folder: Path) -> list[str]:
    return [name for name in _names(folder) if not (folder / name).is_dir()]


def _held(folder: Path) -> list[str]:
    """Files below a folder that somebody has locked."""
    held = []
    for path in folder.rglob("*.lock"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(str(path))
    return held
