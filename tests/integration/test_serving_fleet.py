"""A fleet of real processes: ready or diagnosed, watched, stopped, and nothing left."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from fairshare.devices.device import Device
from fairshare.errors import ServerError, SpecError
from fairshare.events import EventLog
from fairshare.processes.ports import free_port, is_free
from fairshare.processes.scope import RunScope, run_scope
from fairshare.records import Mode, Provenance
from fairshare.serving.fleet import Fleet, fleet
from fairshare.serving.metrics import MetricsScraper
from fairshare.serving.models import ModelFacts
from fairshare.serving.plugins import SOCKET_VARIABLE
from fairshare.serving.probes import get, new_session
from fairshare.serving.server import Server, ServerState
from fairshare.sharing.plan import PartitionPlan, Slot
from fairshare.spec.launcher import DeviceKind, Launcher

STUB = Path(__file__).with_name("serving_stub.py")
_COMMAND = ["{python}", str(STUB), "--port", "{port}", "--served-model-name", "{served_model}"]
MODEL = ModelFacts("m", "m", "m", 512, 4096, None, None, ())
DEVICE = Device(DeviceKind.VIRTUAL, "virtual:x", "x", 1 << 30)


@dataclass
class Bench:
    """A run's scope, its events, and a way to start stubs in it."""

    scope: RunScope
    logs: Path
    events: list[Mapping[str, Any]] = field(default_factory=list)

    def fleet(
        self,
        do: str = "serve",
        slots: tuple[str, ...] = ("a",),
        device: Device = DEVICE,
        **changes: Any,
    ) -> AbstractAsyncContextManager[Fleet]:
        """A fleet of stubs, one per slot."""
        command = ["{python}", str(STUB), "--port", "{port}", "--do", do]
        values: dict[str, Any] = {
            "name": "stub",
            "engine": "virtual",
            "command": [*command, "--served-model-name", "{served_model}"],
            "ready_timeout_s": 20,
            "stop_grace_s": 5,
        }
        plan = PartitionPlan(
            Mode.TIMESLICE,
            "timeslice",
            Provenance.SIMULATED,
            device,
            tuple(Slot(name, (name, f"{name}2"), "m") for name in slots),
        )
        launcher = Launcher.model_validate(values | changes)
        return fleet(plan, launcher, {"m": MODEL}, self.scope, self.logs, "s3cret")

    def names(self) -> list[str]:
        """The events so far."""
        return [event["event"] for event in self.events]


@pytest.fixture(name="bench")
async def _bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("FAIRSHARE_CACHE_DIR", str(tmp_path / "cache"))
    events: list[Mapping[str, Any]] = []
    log = EventLog()
    log.listen(events.append)
    async with run_scope(log) as scope:
        yield Bench(scope, tmp_path / "servers", events)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (a file and a list of events cannot be awaited)
            await asyncio.sleep(0.01)


async def _ask(server: Server, path: str) -> None:
    async with new_session() as session:
        await get(session, server.base_url + path, None)


async def test_servers_run_side_by_side_and_leave_nothing(bench: Bench) -> None:
    """While open, every server is ready; after it, no process, port or temporary file is left."""
    async with bench.fleet(slots=("a", "b")) as running:
        servers = list(running.servers.values())
        assert [server.state for server in servers] == [ServerState.READY] * 2
        assert running.server_of("b2") is running.servers["b"]
        assert running.dead() is None
        pids = [pid for server in servers for pid in server.pids()]
        folders = [bench.scope.slot_dir(name) for name in ("a", "b")]
        assert len(pids) == 2
        assert all((folder / "socket").exists() for folder in folders)
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not [folder for folder in folders if folder.exists()]
    assert all(is_free(int(server.base_url.rsplit(":", 1)[1])) for server in servers)
    assert [server.state for server in servers] == [ServerState.STOPPED] * 2
    assert "server.leftover" not in bench.names()


@pytest.mark.parametrize(
    ("told", "order"),
    [
        ([], ["starting", "ready", "starting", "ready"]),
        (["--kv-cache-memory-bytes", "1M"], ["starting", "starting", "ready", "ready"]),
    ],
)
async def test_starts_overlap_only_where_each_is_told_what_to_hold(
    bench: Bench, told: list[str], order: list[str]
) -> None:
    """Two that size themselves at once both get it wrong; on CPUs with a core each, others may."""
    device = Device(DeviceKind.CPU, "cpu", "x", 1 << 30, cores=(0, 1))
    command = [*_COMMAND, *told]
    for _ in range(2):  # the first start is a cold one, and never beside another
        bench.events.clear()
        async with bench.fleet(slots=("a", "b"), device=device, engine="vllm", command=command):
            pass
    names = [name.removeprefix("server.") for name in bench.names()]
    assert [name for name in names if name in ("starting", "ready")] == order


async def test_the_same_slot_can_be_used_again(bench: Bench) -> None:
    """A later deployment of a run gets its private folders anew, and a warm start."""
    colds = []
    for _ in range(2):
        async with bench.fleet(engine="tgi") as running:  # the virtual engine compiles nothing
            colds.append(running.servers["a"].cold)
    assert colds == [True, False]


async def test_the_key_travels_by_environment_only(bench: Bench) -> None:
    """A server that wants the run's key gets it, and neither command nor log files hold it."""
    async with bench.fleet(api_key_env="STUB_KEY") as running:
        server = running.servers["a"]
        assert server.api_key == "s3cret"
        assert "s3cret" not in " ".join(psutil.Process(server.pids()[0]).cmdline())
    shown = (bench.logs / "a.cmd").read_text("utf-8")
    assert "STUB_KEY=***" in shown
    assert "s3cret" not in shown
    assert not [event for event in bench.events if "s3cret" in str(event)]


@pytest.mark.parametrize(
    ("do", "changes", "says"),
    [
        ("die", {}, "server a exited with code 3 before it was ready: OSError: [Errno 98] taken"),
        ("hang", {"ready_timeout_s": 0.5}, "server a was not ready after 0.5 s"),
        ("garbage", {}, "does not speak HTTP"),
        ("html", {}, "no list of models: '<html>hello</html>'"),
        ("other-model", {}, "it serves another, not m: another server answers"),
        ("no-health", {}, "/health answers 404 (is health_path right?)"),
    ],
)
async def test_a_server_that_is_never_ready_is_diagnosed(
    bench: Bench, do: str, changes: dict[str, Any], says: str
) -> None:
    """Each way of not becoming ready is told in its own words, and leaves nothing running."""
    with pytest.raises(ServerError) as caught:
        async with bench.fleet(do, **changes):
            pytest.fail("it was said to be ready")
    assert says in caught.value.message
    assert str(bench.logs / "a.log") in (caught.value.hint or "")
    assert "server.failed" in bench.names()
    assert "process.gone" in bench.names()
    assert not bench.scope.slot_dir("a").exists()


async def test_a_start_that_fails_quotes_the_log_and_a_hint(bench: Bench) -> None:
    """The last log lines are the evidence, and a known cause comes with what to do."""
    with pytest.raises(ServerError) as caught:
        async with bench.fleet("die"):
            pass
    assert "INFO loading" in caught.value.evidence
    assert "another program took the port" in (caught.value.hint or "")


async def test_an_engine_without_the_socket_that_was_asked_for_is_not_ready(bench: Bench) -> None:
    """A server that would answer over HTTP alone is told from one that takes requests without."""
    with pytest.raises(ServerError, match="takes no requests without HTTP"):
        async with bench.fleet(env={SOCKET_VARIABLE: "{run_dir}/nowhere"}):
            pass
    assert "server.ready" not in bench.names()


async def test_the_others_are_stopped_when_one_fails(bench: Bench) -> None:
    """If the second server cannot start, the first is stopped before the error is seen."""
    first = free_port()
    command = ["{python}", str(STUB), "--port", "{port}", "--served-model-name", "{served_model}"]
    failing = ["--do", "{slot}"]  # the slot's name says what it does
    with pytest.raises(ServerError, match="server die exited"):
        async with bench.fleet(
            slots=("serve", "die"), command=[*command, *failing], args={"port": first}
        ):
            pass
    assert is_free(first)
    assert bench.names().count("process.gone") == 2


async def test_a_server_that_dies_is_noticed_whatever_its_code(bench: Bench) -> None:
    """Exit code 0 without being asked is a death too, and is diagnosed."""
    async with bench.fleet(slots=("a", "b")) as running:
        victim = running.servers["b"]
        await _ask(victim, "/quit")
        await asyncio.wait_for(victim.died.wait(), 5)
        assert running.dead() is victim
        assert "exited with code 0 without being asked to" in victim.diagnosis().message
    assert victim.state is ServerState.FAILED


async def test_a_killed_server_is_noticed(bench: Bench) -> None:
    """A server killed from outside is told with the signal that ended it."""
    async with bench.fleet() as running:
        server = running.servers["a"]
        os.kill(server.pids()[0], signal.SIGKILL)
        await asyncio.wait_for(server.died.wait(), 5)
        diagnosis = server.diagnosis()
        assert "was killed by SIGKILL" in diagnosis.message
        assert "dmesg" in (diagnosis.hint or "")


async def test_a_server_without_its_engine_is_noticed(bench: Bench) -> None:
    """A server that keeps answering 503 has died, although its process runs."""
    async with bench.fleet() as running:
        server = running.servers["a"]
        await _ask(server, "/sicken")
        await asyncio.wait_for(server.died.wait(), 10)
        assert "answers 503" in server.diagnosis().message
        assert server.process is not None
        assert server.process.returncode is None


async def test_a_server_that_ignores_sigterm_is_ended_with_its_children(bench: Bench) -> None:
    """Neither a server nor its detached child can refuse to go."""
    async with bench.fleet("stubborn", stop_grace_s=0.2) as running:
        pids = running.servers["a"].pids()
        assert len(pids) == 2
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


async def test_cancelling_a_start_leaves_nothing(bench: Bench) -> None:
    """A run that is interrupted while a server starts ends that server."""
    task = asyncio.create_task(bench.fleet("hang").__aenter__())
    await _until(lambda: "process.spawned" in bench.names())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "process.gone" in bench.names()
    assert not bench.scope.slot_dir("a").exists()


async def test_a_port_in_use_is_told_before_anything_starts(bench: Bench) -> None:
    """A chosen port that is taken is an error of the input, not a failed start."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(SpecError, match=f"port {port} of 127.0.0.1 is in use"):
            async with bench.fleet(args={"port": port}):
                pass
    assert "process.spawned" not in bench.names()


@pytest.mark.parametrize("port", ["8000", True, 1.5])
async def test_a_port_that_is_no_number_is_refused(bench: Bench, port: Any) -> None:
    """A port written as text is an error of the input; it was asked for, so none is made up."""
    with pytest.raises(SpecError, match=r"args\.port is .* which is not a port"):
        async with bench.fleet(args={"port": port}):
            pass
    assert "process.spawned" not in bench.names()


async def test_leftovers_are_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be removed is told as an event and ends the deployment with an error."""
    monkeypatch.setattr("fairshare.serving.fleet.is_free", lambda port: False)
    with pytest.raises(ServerError, match="left something behind") as caught:
        async with bench.fleet():
            pass
    assert "still taken" in caught.value.evidence[0]
    assert "server.leftover" in bench.names()


async def test_shared_memory_that_stays_is_an_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment that a server made and that cannot be removed would be the next one's to miss."""
    monkeypatch.setattr("fairshare.processes.spawn.remove_unheld", lambda segments, uid: [])
    segment = Path("/dev/shm") / f"fs-test-{os.getpid()}"  # noqa: S108 - shared memory is meant
    with pytest.raises(ServerError, match="left something behind") as caught:
        async with bench.fleet(command=[*_COMMAND, "--segment", str(segment)]):
            pass
    segment.unlink()
    assert caught.value.evidence == (f"a: shared memory {segment.name} is still there",)


async def test_idle_is_waited_for(bench: Bench) -> None:
    """Waiting for idleness ends when the last request has, and complains if it never does."""
    async with bench.fleet() as running:
        server = running.servers["a"]
        await running.wait_idle(1)
        await _ask(server, "/busy")
        with pytest.raises(ServerError, match=r"still busy after 0\.3 s: 2 running"):
            await running.wait_idle(0.3)
        waiting = asyncio.create_task(running.wait_idle(10))
        await _ask(server, "/idle")
        await waiting
        await _ask(server, "/quit")
        await asyncio.wait_for(server.died.wait(), 5)
        with pytest.raises(ServerError, match="exited with code 0"):
            await running.wait_idle(1)


async def test_metrics_are_written_while_servers_run(bench: Bench, tmp_path: Path) -> None:
    """Each line holds a server's figures at a time since the epoch; absent ones are null."""
    path = tmp_path / "server_metrics.jsonl"
    async with bench.fleet(slots=("a", "b")) as running:
        await _ask(running.servers["a"], "/busy")
        async with MetricsScraper(running, path, interval_s=0.05):
            await _until(lambda: path.read_bytes().count(b"\n") >= 6)
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert {line["server"]: line["running"] for line in lines} == {"a": 2, "b": 0}
    assert all(line["kv_usage"] is None and line["waiting"] == 0 for line in lines)
    times = [line["t_ns"] for line in lines]
    assert times == sorted(times)
    assert 0 < times[0] < 5_000_000_000


async def test_metrics_that_cannot_be_written_are_an_error(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk ends the recording, and whoever opened it hears of it."""
    asked = asyncio.Event()

    async def full(session: Any, server: Server) -> None:
        asked.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fairshare.serving.metrics.fetch_metrics", full)
    async with bench.fleet() as running:
        scraper = MetricsScraper(running, tmp_path / "server_metrics.jsonl")
        with pytest.raises(OSError, match="No space left"):
            async with scraper:
                await asked.wait()


async def test_a_server_that_is_gone_has_null_metrics(bench: Bench, tmp_path: Path) -> None:
    """A server that no longer answers leaves lines without figures, not a gap."""
    path = tmp_path / "server_metrics.jsonl"
    async with bench.fleet() as running:
        await _ask(running.servers["a"], "/quit")
        await asyncio.wait_for(running.servers["a"].died.wait(), 5)
        async with MetricsScraper(running, path, interval_s=0.05):
            await _until(lambda: b"\n" in path.read_bytes())
    assert orjson.loads(path.read_bytes().splitlines()[0])["running"] is None
