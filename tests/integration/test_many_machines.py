"""A sweep over several machines: real nodes of Ray, each with a simulated GPU of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from fairshare.processes.labelled import environment_of
from fairshare.records import CellStatus
from fairshare.results.store import ResultStore
from tests.workplace import Workplace, wait_end

pytestmark = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install 'fairshare[ray]'"
)

Wait = Callable[[subprocess.Popen[str], str], str]
# Both open loop, so that what is sent follows from the seeds alone.
SCENARIO = """\
name: feeds
description: two tenants that send by the clock
timing: {warmup_s: 0.2, window_s: %s, drain_s: 5}
tenants:
  - name: chat
    arrival: {kind: poisson, rate_per_s: 10}
    prompts: {kind: jsonl, path: words/prompts.jsonl}
    output: {kind: uniform, min: 2, max: 8}
  - name: feed
    arrival: {kind: poisson, rate_per_s: 8}
    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 16}}
    output: {kind: fixed, tokens: 4}
"""
GONE_WITHIN_S = 30.0
NODES = str(Path(__file__).with_name("ray_nodes.py"))
TOO_SLOW = "timed out during startup"


@dataclass
class Machines:
    """A cluster whose nodes stand for machines: each has folders of its own."""

    place: Workplace
    nodes: subprocess.Popen[str]
    address: str = ""
    names: dict[str, str] = field(default_factory=dict)
    """What each is called in the results: all are on this host."""

    def add(self, name: str) -> None:
        """Start a node that may simulate a GPU; it shares only the cache of models."""
        own = self.place.path / name
        for folder in ("locks", "tmp"):
            (own / folder).mkdir(parents=True)
        variables = {
            "FAIRSHARE_STATE_DIR": own / "state",
            "FAIRSHARE_LOCK_DIR": own / "locks",
            "FAIRSHARE_CACHE_DIR": self.place.env["FAIRSHARE_CACHE_DIR"],
            "TMPDIR": own / "tmp",
            "PYTHONPATH": self.place.env["PYTHONPATH"],
        }
        self._say("add", name, *(f"{variable}={value}" for variable, value in variables.items()))
        if (answer := self._answer()) == TOO_SLOW:
            pytest.skip("this machine is too busy: a node of Ray did not start within its 30 s")
        self.address, node_id = answer.split()
        self.names[name] = f"{os.uname().nodename}-{node_id[:6]}"

    def kill(self, name: str) -> None:
        """Kill all of Ray's processes of a node; return when they are gone."""
        self._say("kill", name)
        self._answer()

    def _say(self, *words: str) -> None:
        assert self.nodes.stdin is not None
        self.nodes.stdin.write(" ".join(words) + "\n")
        self.nodes.stdin.flush()

    def _answer(self) -> str:
        assert self.nodes.stdout is not None
        line = self.nodes.stdout.readline()
        assert line, "the cluster ended"
        return line.strip()

    def processes(self, name: str) -> list[psutil.Process]:
        """What runs for fairshare on a machine, servers and reapers included."""
        state = str(self.place.path / name / "state")
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if environment_of(process.pid).get("FAIRSHARE_STATE_DIR") == state
            and any("fairshare." in word for word in process.info["cmdline"] or ())
        ]

    def left(self, name: str) -> list[str]:
        """Files that runs have left on a machine: journals, locks, private folders."""
        own = self.place.path / name
        folders = (own / "state" / "runs", own / "locks", own / "tmp")
        return [str(each) for f in folders if f.is_dir() for each in f.iterdir()]

    def sweep(self, output_dir: str, *more: str) -> tuple[str, ...]:
        """The command that runs two deployments on the cluster."""
        on = ("--on", "ray", "--ray-address", self.address)
        return (*local(output_dir), *on, *more)


def local(output_dir: str) -> tuple[str, ...]:
    """The command that runs two deployments on this machine."""
    modes = ("--modes", "logical,timeslice", "--device", "virtual:a100-40")
    return ("matrix", "feeds.yaml", *modes, "--output-dir", output_dir, "--no-report")


@pytest.fixture
def machines(workplace: Workplace) -> Iterator[Machines]:
    """A cluster that has no nodes yet; at the end none of its processes is left."""
    workplace.write("feeds.yaml", SCENARIO % 1)
    (workplace.path / "words").mkdir()
    lines = (orjson.dumps({"prompt": f"line {number} of a file"}) for number in range(64))
    (workplace.path / "words" / "prompts.jsonl").write_bytes(b"\n".join(lines))
    token = workplace.path / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    workplace.env |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as there by default: on loopback alone
    }
    before = {process.pid for process in psutil.process_iter()}
    folder = tempfile.mkdtemp(prefix="fs-", dir="/tmp")
    (Path(folder) / "ray").mkdir()  # a note of Ray's on its last cluster
    nodes = subprocess.Popen(
        [sys.executable, NODES, folder],
        env={**workplace.env, "TMPDIR": folder},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with nodes:
        yield Machines(workplace, nodes)
    for process in psutil.process_iter():
        of_ray = environment_of(process.pid).get("RAY_AUTH_TOKEN_PATH") == str(token)
        if process.pid not in before and of_ray:
            wait_end(process, GONE_WITHIN_S)
    shutil.rmtree(folder)


@contextlib.contextmanager
def following(path: Path) -> Iterator[subprocess.Popen[str]]:
    """The lines of a file that grows, from its first."""
    command = ["tail", "-n", "+1", "-F", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tail:
        yield tail
        tail.kill()


def told(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What was sent and answered in each cell, without what differs from run to run."""
    return {
        cell.result.id: sorted(
            (r.id, r.tenant, r.phase, r.intended_ns, r.prompt_tokens, r.output_tokens, r.error)
            for r in cell.records()
        )
        for cell in ResultStore.open(folder).cells()
    }


@pytest.mark.timeout(240)
def test_what_a_lost_machine_had_not_measured_is_measured_elsewhere(
    machines: Machines, wait_for: Wait
) -> None:
    """Cells, requests and tokens are those of one machine, though one of two is lost on the way."""
    place = machines.place
    alone = place.run(*local("alone"))
    assert alone.returncode == 0, alone.stdout
    machines.add("first")
    machines.add("second")
    sweep = place.start(*machines.sweep("out"))
    wait_for(sweep, "ready after")
    lost = machines.names["second"]
    with following(place.path / "out" / "events.jsonl") as events:
        wait_for(events, f'"phase":"measure","machine":"{lost}"')
    machines.kill("second")
    rest = sweep.communicate(timeout=100)[0]
    assert sweep.returncode == 0, rest
    assert f"lost {lost}" in rest
    assert told(place.path / "out") == told(place.path / "alone")
    cells = ResultStore.open(place.path / "out").cells()
    assert all(cell.complete and cell.result.status is CellStatus.OK for cell in cells)
    assert {cell.result.machine for cell in cells} <= set(machines.names.values())
    for name in machines.names:
        for process in machines.processes(name):
            wait_end(process, GONE_WITHIN_S)
        assert machines.left(name) == []


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_killed_command_leaves_nothing_on_the_nodes_and_can_be_resumed(
    machines: Machines, wait_for: Wait
) -> None:
    """Every node puts back what it made; --resume measures what is missing, and nothing twice."""
    place = machines.place
    machines.add("first")
    machines.add("second")
    sweep = place.start(*machines.sweep("out"))
    wait_for(sweep, "ready after")
    with following(place.path / "out" / "events.jsonl") as events:
        wait_for(events, '"phase":"measure"')
    sweep.kill()
    sweep.communicate()
    for name in machines.names:
        for process in machines.processes(name):
            wait_end(process, GONE_WITHIN_S)
        assert machines.left(name) == []
    resumed = place.run(*machines.sweep("out", "--resume"))
    assert resumed.returncode == 0, resumed.stdout
    alone = place.run(*local("alone"))
    assert alone.returncode == 0, alone.stdout
    assert told(place.path / "out") == told(place.path / "alone")
