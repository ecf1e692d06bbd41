"""A private MPS control daemon: started, asked, stopped, and seen to be gone.

It runs in the foreground (``-f``) as our child, since a daemonised one escapes every means of
finding it again; it has a pipe and a log directory of its own, so it is nobody else's daemon. Its
exit code only says "a daemon was reached", so every answer is read.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fairshare.devices.device import Device
from fairshare.errors import PartitionError, ServerError
from fairshare.processes.scope import RunScope
from fairshare.processes.spawn import ManagedProcess
from fairshare.sharing.tools import Answer, ToolMissingError, run_tool, tool_env, undo_env
from fairshare.spec.launcher import DeviceKind

CONTROL = "nvidia-cuda-mps-control"
PIPE_VARIABLE = "CUDA_MPS_PIPE_DIRECTORY"
LOG_VARIABLE = "CUDA_MPS_LOG_DIRECTORY"
PERCENTAGE_VARIABLE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
MEMORY_VARIABLE = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"

_DEFAULT_PIPES = ("/tmp/nvidia-mps", "/run/nvidia-mps")  # noqa: S108 - where NVIDIA puts them
_LONGEST_PIPE = 90  # the socket in it must stay below 108 bytes; beyond, it fails without a word
_ANSWER_S = 5.0
_READY_S = 15.0
_QUIT_S = 5


async def ask(command: str, pipe_dir: Path, driver_env: Mapping[str, str]) -> Answer:
    """Send one command to the daemon of a pipe directory.

    Raises:
        PartitionError: the control program is missing or does not answer.
    """
    env = {**tool_env(driver_env), PIPE_VARIABLE: str(pipe_dir)}
    return await run_tool([CONTROL], env, timeout_s=_QUIT_S + _ANSWER_S, text=f"{command}\n")


async def refuse_foreign_daemon(driver_env: Mapping[str, str]) -> None:
    """Make sure that no daemon answers where CUDA looks for one unasked.

    Raises:
        PartitionError: one does: it would take servers in that must not run under MPS.
    """
    for pipe_dir in map(Path, _DEFAULT_PIPES):
        if not (pipe_dir / "control").exists():
            continue
        try:
            answer = await ask("get_server_list", pipe_dir, driver_env)
        except ToolMissingError:
            return
        if answer.returncode == 0:
            raise PartitionError(
                f"somebody else's MPS daemon answers in {pipe_dir}",
                hint=f"stop it: echo quit | {PIPE_VARIABLE}={pipe_dir} {CONTROL}",
            )


async def quit_daemon(pipe_dir: Path, driver_env: Mapping[str, str]) -> None:
    """Ask the daemon of a pipe directory to end within a limit; well where there is none.

    Raises:
        PartitionError: it still answers afterwards.
    """
    if not (pipe_dir / "control").exists():
        return
    await ask(f"quit -t {_QUIT_S}", pipe_dir, driver_env)
    if (await ask("get_server_list", pipe_dir, driver_env)).returncode == 0:
        raise PartitionError(f"the MPS daemon in {pipe_dir} does not quit")


class MpsDaemon:
    """A running daemon of ours."""

    def __init__(
        self, process: ManagedProcess, pipe_dir: Path, driver_env: Mapping[str, str]
    ) -> None:
        self.process = process
        self.pipe_dir = pipe_dir
        self._driver_env = driver_env

    @property
    def client_env(self) -> dict[str, str]:
        """What makes a process a client of this daemon."""
        return {PIPE_VARIABLE: str(self.pipe_dir)}

    async def ask(self, command: str) -> Answer:
        """Send one command.

        Raises:
            PartitionError: the control program does not answer.
        """
        return await ask(command, self.pipe_dir, self._driver_env)

    async def wait_ready(self) -> None:
        """Return once the daemon answers sensibly.

        Raises:
            PartitionError: it ended, or did not answer in time; with the end of its log.
        """
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            if self.process.returncode is not None:
                raise PartitionError(
                    f"the MPS daemon ended at once (exit code {self.process.returncode})",
                    evidence=self.process.log_tail(10),
                )
            answer = await self.ask("get_default_active_thread_percentage")
            if answer.returncode == 0 and _is_number(answer.output):
                return
            await asyncio.sleep(0.05)
        raise PartitionError(
            f"the MPS daemon did not answer within {_READY_S:g} s",
            evidence=self.process.log_tail(10),
        )

    async def stop(self) -> None:
        """Ask it to quit within a limit, then make it.

        Raises:
            PartitionError: something of it is left.
        """
        try:
            if self.process.returncode is None:
                await self.ask(f"quit -t {_QUIT_S}")
        finally:
            # Whatever the answer was: what counts is that nothing of it runs any more.
            await self.process.stop(grace_s=_ANSWER_S)
        if self.process.returncode is None or self.process.tree():
            raise PartitionError(
                "the MPS daemon could not be stopped", evidence=self.process.log_tail(10)
            )


@asynccontextmanager
async def mps_daemon(
    device: Device, scope: RunScope, driver_env: Mapping[str, str]
) -> AsyncIterator[MpsDaemon]:
    """A private daemon for one device, ready to take clients; gone at the end.

    Raises:
        PartitionError: it cannot be started, died on the way, or could not be stopped.
    """
    # No tenant's name has capitals, so no server's folder is one of these.
    pipe_dir, log_dir = scope.slot_dir("MPS-pipe"), scope.slot_dir("MPS-log")
    if len(str(pipe_dir)) > _LONGEST_PIPE:
        raise PartitionError(
            f"the path {pipe_dir} is too long for the MPS daemon's socket",
            hint="set TMPDIR to a short folder",
        )
    undo = [sys.executable, "-m", "fairshare.sharing.undo", "mps", str(pipe_dir)]
    step = scope.journal.intend(
        f"MPS daemon in {pipe_dir}",
        [undo],
        {**driver_env, **undo_env(), PIPE_VARIABLE: str(pipe_dir)},
    )
    started_s = time.monotonic()
    env = _daemon_env(device, driver_env, pipe_dir, log_dir)
    process = await _spawn(env, log_dir, scope)
    daemon = MpsDaemon(process, pipe_dir, driver_env)
    try:
        await daemon.wait_ready()
        scope.events.emit(
            "mps.ready",
            pid=process.pid,
            pipe_dir=str(pipe_dir),
            start_s=time.monotonic() - started_s,
        )
        yield daemon
        if process.returncode is not None:
            raise PartitionError(
                f"the MPS daemon died on the way (exit code {process.returncode}): "
                "the servers ran without MPS from then on",
                evidence=process.log_tail(10),
            )
    finally:
        await daemon.stop()
        scope.journal.done(step)
        scope.events.emit("mps.stopped", pid=process.pid)


async def _spawn(env: Mapping[str, str], log_dir: Path, scope: RunScope) -> ManagedProcess:
    try:
        return await ManagedProcess.spawn(
            "mps-control", [CONTROL, "-f"], env=env, log_path=log_dir / "daemon.log", scope=scope
        )
    except ServerError as error:
        raise PartitionError(
            error.message, hint="it comes with the NVIDIA driver; is it on PATH?"
        ) from error


def _daemon_env(
    device: Device, driver_env: Mapping[str, str], pipe_dir: Path, log_dir: Path
) -> dict[str, str]:
    env = {
        name: value for name, value in tool_env(driver_env).items() if not name.startswith("CUDA_")
    }
    env |= {PIPE_VARIABLE: str(pipe_dir), LOG_VARIABLE: str(log_dir)}
    if device.kind is DeviceKind.CUDA:
        env["CUDA_VISIBLE_DEVICES"] = device.id
    return env


def _is_number(text: str) -> bool:
    try:
        float(text.strip())
    except ValueError:
        return False
    return True
