"""Run fairshare as a user does: a process, a terminal's exit code, files."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import psutil
import pytest

from fairshare.processes.labelled import environment_of
from fairshare.records import RequestRecord
from fairshare.results.store import ResultStore, StoredCell

TIMEOUT_S = 100
# Two tenants, one closed and one open loop, short enough that a cell takes about two seconds.
SCENARIO = """\
name: brief
description: two tenants for a moment
timing: {warmup_s: 0.3, window_s: 1, drain_s: 5}
tenants:
  - name: chat
    prompts: {kind: synthetic, tokens: {kind: uniform, min: 8, max: 32}}
    output: {kind: uniform, min: 4, max: 12}
    slo: {ttft_s: 2, e2e_s: 5}
  - name: feed
    arrival: {kind: poisson, rate_per_s: 12}
    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 16}}
    output: {kind: fixed, tokens: 8}
"""
# The fake server in an engine's place: the CPU device, a real process per tenant, no model.
FAKE_LAUNCHER = """\
name: fake
description: stands for an engine and misbehaves on request
engine: tgi
devices: [cpu]
apis: [completions]
command:
  - {python}
  - -m
  - fairshare.testing.fake_server
  - --model
  - "{{model}}"
  - --served-model-name
  - "{{served_model}}"
  - --host
  - "{{host}}"
  - --port
  - "{{port}}"
args: {args}
env: {{OMP_NUM_THREADS: "{{threads}}", PYTHONPATH: {root}}}
api_key_env: VLLM_API_KEY
ready_timeout_s: 10
stop_grace_s: 2
"""
ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Workplace:
    """A folder of its own for one test, and a way to run fairshare in it."""

    path: Path
    env: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs fairshare."""
        return [sys.executable, "-m", "fairshare", *arguments]

    def run(
        self, *arguments: str, timeout_s: float = TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; standard output and error together."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.path,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start, with output to read line by line."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.path,
            env={**self.env, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def write(self, name: str, text: str) -> str:
        """A file of the workplace; returns its path."""
        path = self.path / name
        path.write_text(text)
        return str(path)

    def fake_launcher(self, **args: object) -> str:
        """A launcher of the fake server with these arguments."""
        shown = orjson.dumps(args).decode()
        text = FAKE_LAUNCHER.format(python=sys.executable, args=shown, root=ROOT)
        return self.write("fake.yaml", text)

    def start_fake(self, port: int) -> subprocess.Popen[str]:
        """A fake server that is nobody's child of a run; returns when it answers."""
        fake = subprocess.Popen(
            [sys.executable, "-m", "fairshare.testing.fake_server", "--port", str(port)],
            cwd=ROOT,
            text=True,
        )
        while fake.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return fake
        raise AssertionError("the fake server did not start")

    def cells(self, folder: str) -> dict[str, StoredCell]:
        """The cells of a result folder by slug."""
        return {cell.result.key.slug: cell for cell in ResultStore.open(self.path / folder).cells()}

    def records(self, folder: str, slug: str) -> list[RequestRecord]:
        """The records of one cell."""
        return list(self.cells(folder)[slug].records())

    def leftovers(self) -> list[str]:
        """Processes started for runs of this workplace, and their private folders and journals."""
        state = self.env["FAIRSHARE_STATE_DIR"]
        found = [
            f"process {entry.name}"
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit()
            and int(entry.name) != os.getpid()
            and environment_of(int(entry.name)).get("FAIRSHARE_STATE_DIR") == state
        ]
        found += [str(path) for path in (self.path / "tmp").iterdir()]
        for folder in (Path(state) / "runs", Path(self.env["FAIRSHARE_LOCK_DIR"])):
            found += [str(path) for path in folder.iterdir()] if folder.is_dir() else []
        return found


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models are made, and engines asked for their options, once for all tests of a process."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    folder.mkdir(exist_ok=True, mode=0o700)
    return folder


@contextlib.contextmanager
def workplace_in(folder: Path, cache_dir: Path) -> Iterator[Workplace]:
    """A workplace that checks at its end that nothing of its runs is left anywhere."""
    (folder / "tmp").mkdir()
    place = Workplace(
        folder,
        {
            **{k: v for k, v in os.environ.items() if not k.startswith("FAIRSHARE_")},
            "FAIRSHARE_STATE_DIR": str(folder / "state"),
            "FAIRSHARE_LOCK_DIR": str(folder / "locks"),
            "FAIRSHARE_CACHE_DIR": str(cache_dir),
            "TMPDIR": str(folder / "tmp"),
            "PYTHONPATH": str(ROOT),
        },
    )
    place.write("brief.yaml", SCENARIO)
    yield place
    assert place.leftovers() == []


@pytest.fixture
def workplace(tmp_path: Path, cache_dir: Path) -> Iterator[Workplace]:
    """A workplace of one test's own."""
    with workplace_in(tmp_path, cache_dir) as place:
        yield place


@pytest.fixture
def own_state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep journals out of the user's state folder, here and in child processes."""
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def wait_for() -> Callable[[subprocess.Popen[str], str], str]:
    """Read a process's output up to a line that holds a text; returns all that was read."""

    def wait(process: subprocess.Popen[str], text: str) -> str:
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            if text in line:
                return seen
        raise AssertionError(f"{text!r} was never printed:\n{seen}")

    return wait


def runs(process: psutil.Process) -> bool:
    """Whether it still runs; one that nobody has waited for (a zombie) does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_end(process: psutil.Process, timeout_s: float) -> None:
    """Return when it has ended, whether or not anybody waits for it as its parent."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        ended = not runs(process) or select.select([descriptor], [], [], timeout_s)[0]
        assert ended, f"{process} still runs after {timeout_s:g} s"
    finally:
        os.close(descriptor)
