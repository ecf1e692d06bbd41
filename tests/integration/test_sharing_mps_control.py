"""The MPS daemon's life and its answers: the stand-in's, and NVIDIA's own control program's."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fairshare.devices.constants import GIB
from fairshare.devices.inventory import virtual_device
from fairshare.errors import PartitionError
from fairshare.events import EventLog
from fairshare.processes.identity import identify
from fairshare.processes.scope import run_scope
from fairshare.sharing import mps_control
from fairshare.sharing.mps_clients import find_client, terminate_clients, trouble, until_usable
from fairshare.sharing.mps_control import CONTROL, PIPE_VARIABLE, MpsControl
from fairshare.sharing.mps_daemon import MpsDaemon, mps_daemon
from fairshare.sharing.mps_foreign import foreign_daemons, refuse_foreign_daemon
from fairshare.virtual.driver import install
from fairshare.virtual.mps_protocol import Limits, RefusedError, join_as_client
from tests.nvidias_mps import nvidias_env

pytestmark = pytest.mark.usefixtures("own_state_dir")
DEVICE = virtual_device("a100-40")
CHECKOUT = Path(__file__).parents[2]
# A server that is found on PATH as the real one is, and then reacts to nothing.
HANGING_SERVER = "#!/bin/sh\ntrap '' INT TERM\nexec sleep 60\n"


@pytest.fixture(params=["stand-in", "NVIDIA's"])
def driver_env(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """The environment that leads to one of the two control programs."""
    if request.param == "stand-in":
        return install(tmp_path / "gpu", "a100-40")
    return nvidias_env()


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """The environment that leads to the stand-in."""
    return install(tmp_path / "gpu", "a100-40")


@asynccontextmanager
async def running(driver_env: dict[str, str]) -> AsyncIterator[MpsDaemon]:
    """A daemon of a run of its own."""
    async with (
        run_scope(EventLog()) as scope,
        mps_daemon(DEVICE, scope, driver_env) as daemon,
    ):
        yield daemon


@contextmanager
def client(daemon: MpsDaemon, pid: int) -> Iterator[None]:
    """A simulated client of the stand-in: a process that stays connected."""
    joined = join_as_client(daemon.control.pipe_dir, pid, Limits())
    assert joined is not None
    with joined[0]:
        yield


def undo(what: str, pipe_dir: Path, driver_env: dict[str, str]) -> int:
    """Run one of the commands that the journal names; its exit code."""
    argv = [sys.executable, "-m", "fairshare.sharing.undo", what, str(pipe_dir)]
    env = {**os.environ, **driver_env, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(argv, env=env, cwd="/", check=False).returncode


async def test_the_daemon_answers_and_ends(driver_env: dict[str, str]) -> None:
    """Ready means it answers; afterwards neither process nor answer is left."""
    async with running(driver_env) as daemon:
        assert await daemon.control.answers()
        assert await daemon.control.servers() == []
        assert await trouble(daemon.control, {}) is None
        await until_usable(daemon.control)
    assert daemon.process.returncode == 0
    assert daemon.process.tree() == []
    assert not await daemon.control.answers()


async def test_limits_are_read_back(driver_env: dict[str, str]) -> None:
    """A limit is in force as it was set, rounded to what the daemon shows, never downwards."""
    async with running(driver_env) as daemon:
        assert await daemon.control.limit_percentage(0.5) == 50.0
        assert await daemon.control.limit_percentage(1 / 3) == 33.4
        assert await daemon.control.limit_memory(20 * GIB) == 20 * GIB
        assert await daemon.control.limit_memory(int(19.87 * GIB)) == 20 * GIB
        assert await daemon.control.limit_memory(1) == GIB


@pytest.mark.parametrize("knob", ["mps_ignores_percentage", "mps_ignores_memory_limit"])
async def test_a_limit_that_is_not_taken_fails(knob: str, stand_in: dict[str, str]) -> None:
    """The control program says 0 whatever happens; a value that differs is an error with both."""
    async with running({**stand_in, "FAIRSHARE_VIRTUAL_FAIL": knob}) as daemon:
        with pytest.raises(PartitionError, match=r"was set to 2.* and it says (100.0|nothing)"):
            await daemon.control.limit_percentage(0.25)
            await daemon.control.limit_memory(2 * GIB)


ANSWERS = {
    "get_server_list": "",
    "ps": "Server not found\n",
    "get_default_active_thread_percentage": "100.0\n",
    "set_default_active_thread_percentage 33.34": "33.3\n",
    "set_default_active_thread_percentage abc": "33.3\n",
    "set_default_active_thread_percentage 150": "33.3\n",
    "get_default_device_pinned_mem_limit 0": "",
    "set_default_device_pinned_mem_limit 0 1536M": "",
    "get_default_device_pinned_mem_limit": "1G\n",
    "set_default_device_pinned_mem_limit 7 1.5G": "",
    "get_default_device_pinned_mem_limit 7": "1M\n",
    "get_client_list 1234": "Server 1234 not found\n",
    "get_client_list": "Server 0 not found\n",
    "get_active_thread_percentage 1234": "Server 1234 not found\n",
    "terminate_client 1 2": "Server 1 not found\nServer 1 not found!\n1\n",
    "get_default_client_priority": "0\n",
    "set_default_client_priority 5": "Invalid priority value - must be 0 or 1!\n",
    "start_server": "A user id (UID) is required to start a new server\n",
    "lspart": 'Unknown command "lspart"\n',
    "bogus": 'Unknown command "bogus"\n',
}


async def test_the_stand_in_answers_as_nvidias_program(driver_env: dict[str, str]) -> None:
    """Word for word the same, and the exit code is 0 for every one of them."""
    async with running(driver_env) as daemon:
        for command, words in ANSWERS.items():
            answer = await daemon.control.ask(command)
            assert (command, answer.output, answer.returncode) == (command, words, 0)


async def test_files_and_log_are_those_of_nvidias_program(driver_env: dict[str, str]) -> None:
    """What lies in the pipe directory while the daemon runs and after it quit, and how it logs."""
    async with running(driver_env) as daemon:
        await daemon.control.ask("get_server_list")
        there = sorted(path.name for path in daemon.control.pipe_dir.iterdir())
        assert there == ["control", "control_lock", "control_privileged", "log"]
        assert await daemon.control.quit() == 0
        assert await daemon.process.wait() == 0
        left = sorted(path.name for path in daemon.control.pipe_dir.iterdir())
        assert left == ["control", "control_lock", "control_privileged"]
        log = daemon.process.log_tail(100)
    stamp = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} Control +\d+\] "
    texts = [re.sub(stamp, "", line) for line in log]
    assert all(re.match(stamp, line) for line in log)
    assert texts[0] == f"Starting control daemon using socket {daemon.control.pipe_dir}/control"
    assert "Cmd:get_server_list" in texts
    assert texts[-2:] == ["quit command issued with timeout of 5", "Exit with status 0"]


async def test_a_second_daemon_of_a_pipe_directory_is_refused(driver_env: dict[str, str]) -> None:
    """The lock decides, not the files: exit code 1 and a sentence."""
    async with running(driver_env) as daemon:
        env = {**os.environ, **driver_env, PIPE_VARIABLE: str(daemon.control.pipe_dir)}
        second = await asyncio.create_subprocess_exec(
            CONTROL, "-d", env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output, _ = await second.communicate()
        assert second.returncode == 1
        assert output.decode() == "An instance of this daemon is already running\n"


async def test_another_daemon_where_cuda_looks_is_refused(driver_env: dict[str, str]) -> None:
    """A daemon in the default place would take servers in that must not run under MPS."""
    async with run_scope(EventLog()) as scope:
        async with mps_daemon(DEVICE, scope, driver_env) as daemon:
            pipes = [daemon.control.pipe_dir]
            with pytest.raises(PartitionError, match="somebody else's MPS daemon answers"):
                await refuse_foreign_daemon(driver_env, pipes)
        await refuse_foreign_daemon(driver_env, pipes)  # its socket is left, and answers nothing


async def test_a_foreign_daemon_anywhere_is_found_and_left_alone(
    driver_env: dict[str, str], tmp_path: Path
) -> None:
    """One without our label is refused by its pid, wherever its pipe is; ours is no stranger."""
    (tmp_path / "pipe").mkdir()
    env = {**os.environ, **driver_env, PIPE_VARIABLE: str(tmp_path / "pipe")}
    async with running(driver_env):
        assert foreign_daemons(driver_env) == []
        foreign = await asyncio.create_subprocess_exec(
            CONTROL, "-f", env=env, stdout=subprocess.DEVNULL
        )
        try:
            control = MpsControl(tmp_path / "pipe", driver_env)
            while not await control.answers():
                assert foreign.returncode is None
            with pytest.raises(PartitionError, match=f"somebody else's MPS runs: .*{foreign.pid}"):
                await refuse_foreign_daemon(driver_env, [])
            assert foreign.returncode is None
        finally:
            await MpsControl(tmp_path / "pipe", driver_env).quit()
            await foreign.wait()


async def test_the_undo_commands_do_no_harm_twice(driver_env: dict[str, str]) -> None:
    """What the journal names releases clients and ends the daemon, and ends well without one."""
    async with running(driver_env) as daemon:
        pipe_dir = daemon.control.pipe_dir
        assert undo("mps-clients", pipe_dir, driver_env) == 0
        assert daemon.process.returncode is None
        assert undo("mps", pipe_dir, driver_env) == 0
        assert await daemon.process.wait() == 0
        assert undo("mps-clients", pipe_dir, driver_env) == 0
        assert undo("mps", pipe_dir, driver_env) == 0


async def test_a_daemon_that_cannot_quit_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVIDIA's waits for ever for a server that reacts to nothing; we wait for a limit."""
    driver_env = nvidias_env()
    server = tmp_path / "bin" / "nvidia-cuda-mps-server"
    server.parent.mkdir()
    server.write_text(HANGING_SERVER)
    server.chmod(0o700)
    path = driver_env["PATH"]
    env = {**driver_env, "PATH": f"{path.partition(':')[0]}:{server.parent}:{path}"}
    monkeypatch.setattr(mps_control, "QUIT_S", 1)
    monkeypatch.setattr(mps_control, "_ANSWER_S", 1.0)
    async with running(env) as daemon:
        await daemon.control.ask(f"start_server -uid {os.geteuid()}")
        (started,) = await daemon.control.servers()
        server_identity = identify(started)
    assert daemon.process.returncode is not None
    assert server_identity is None or not server_identity.alive()


async def test_clients_are_found_and_let_go(stand_in: dict[str, str]) -> None:
    """A server's client is found by pid with what its MPS server says; terminated ones are gone."""
    async with running(stand_in) as daemon:
        with client(daemon, 11), client(daemon, 12):
            found = await find_client(daemon.control, "chat", [10, 11])
            (server,) = await daemon.control.servers()
            assert found == {
                "mps_server_pid": server,
                "mps_client_pids": [11],
                "mps_server_percentage": 100.0,
            }
            assert await terminate_clients(daemon.control, [11, 99]) == [11]
            assert await daemon.control.clients(server) == [12]
            assert await terminate_clients(daemon.control) == [12]
            assert await daemon.control.clients(server) == []


async def test_a_server_that_is_no_client_fails(stand_in: dict[str, str]) -> None:
    """A process that found no daemon runs without limits, and nothing else would say so."""
    async with running(stand_in) as daemon:
        with client(daemon, 12), pytest.raises(PartitionError, match="and without limits"):
            await find_client(daemon.control, "chat", [10, 11])


async def test_every_process_on_the_gpu_must_be_a_client(stand_in: dict[str, str]) -> None:
    """One client does not vouch for another process of the same server that is none."""
    async with running(stand_in) as daemon:
        with client(daemon, 11):
            found = await find_client(daemon.control, "chat", [10, 11], [11])
            assert found["mps_client_pids"] == [11]
            with pytest.raises(PartitionError, match="process 10 of the server chat is no client"):
                await find_client(daemon.control, "chat", [10, 11], [10, 11])


async def test_an_engine_that_left_the_daemon_is_trouble(stand_in: dict[str, str]) -> None:
    """An engine that still runs and is no client any more has lost its limits."""
    own = identify(os.getpid())
    assert own is not None
    async with running(stand_in) as daemon:
        with client(daemon, own.pid):
            assert await trouble(daemon.control, {"chat": [own]}) is None
            await terminate_clients(daemon.control, [own.pid])
            told = await trouble(daemon.control, {"chat": [own]})
            assert told is not None
            assert f"engine of server chat (process {own.pid}) is no client" in told


async def test_a_fault_is_recognised_and_outlived(
    stand_in: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In state FAULT nobody new is served; once all clients have gone the daemon is usable."""
    monkeypatch.setattr("fairshare.sharing.mps_clients._USABLE_S", 0.3)
    async with running(stand_in) as daemon:
        with client(daemon, 11):
            os.kill(daemon.process.pid, signal.SIGUSR1)
            # The signal is handled before the next question is: it came first.
            assert "is in state FAULT" in str(await trouble(daemon.control, {}))
            with pytest.raises(RefusedError, match="not ready"):
                join_as_client(daemon.control.pipe_dir, 12, Limits())
            with pytest.raises(PartitionError, match="not active"):
                await until_usable(daemon.control)
        await until_usable(daemon.control)
        with client(daemon, 12):
            assert await trouble(daemon.control, {}) is None


async def test_clients_are_let_go_before_they_are_killed(stand_in: dict[str, str]) -> None:
    """Whoever is about to be killed is first terminated as a client, and told as an event."""
    events: list[dict[str, Any]] = []
    log = EventLog()
    log.listen(lambda entry: events.append(dict(entry)))
    async with run_scope(log) as scope, mps_daemon(DEVICE, scope, stand_in) as daemon:
        with client(daemon, 11):
            await scope.guards.ask([11])
            assert await terminate_clients(daemon.control) == []
    assert [event["problems"] for event in events if event["event"] == "process.guarded"][:1] == [
        []
    ]


async def test_a_missing_control_program_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the program the error says what is missing and where it comes from."""
    monkeypatch.setenv("PATH", str(tmp_path))
    async with run_scope(EventLog()) as scope:
        with pytest.raises(PartitionError, match=CONTROL) as caught:
            async with mps_daemon(DEVICE, scope, {}):
                pytest.fail("it must not come so far")
    assert "comes with the NVIDIA driver" in str(caught.value)
