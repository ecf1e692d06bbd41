"""A private MPS control daemon: started, ready, stopped, and seen to be gone.

It runs in the foreground (``-f``) as our child, since a daemonised one escapes every means of
finding it again; it has a pipe and a log directory of its own, so it is nobody else's daemon. It
does not end with us: whoever cleans up after a killed run needs it to let go of the clients.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fairshare.devices.device import Device
from fairshare.errors import PartitionError, ServerError
from fairshare.processes.scope import RunScope
from fairshare.processes.spawn import ManagedProcess
from fairshare.sharing.mps_clients import terminate_clients
from fairshare.sharing.mps_control import CONTROL, LOG_VARIABLE, PIPE_VARIABLE, MpsControl
from fairshare.sharing.tools import tool_env, undo_env
from fairshare.spec.launcher import DeviceKind

_LONGEST_PIPE = 90  # the socket in it must stay below 108 bytes; beyond, it fails without a word
_READY_S = 15.0
_STOP_S = 5.0
_NOT_STARTED = "fairshare doctor --modes mps tells what it lacks"
_NO_PARTITIONS = (
    "static partitions need the MPS of CUDA 13.1, which comes with driver R590 or newer; "
    "--mps-partitioning limits does without"
)
_VERSION = re.compile(r"CUDA MPS Control binary version: (\d+)")


class MpsDaemon:
    """A running daemon of ours."""

    def __init__(self, process: ManagedProcess, control: MpsControl, scope: RunScope) -> None:
        self.process = process
        self.control = control
        self._scope = scope

    @property
    def client_env(self) -> dict[str, str]:
        """What makes a process a client of this daemon."""
        return {PIPE_VARIABLE: str(self.control.pipe_dir)}

    @property
    def version(self) -> int | None:
        """The control program's version, 13010 for CUDA 13.1; those before 13000 do not tell."""
        log = "\n".join(self.process.log_tail(100))
        found = _VERSION.search(log)
        return int(found[1]) if found else None

    async def wait_ready(self, *, static: bool = False) -> None:
        """Return once the daemon answers sensibly.

        Raises:
            PartitionError: it ended, or did not answer in time; with the end of its log.
        """
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            if self.process.returncode is not None:
                how = "does not start with static SM partitions" if static else "ended at once"
                raise PartitionError(
                    f"the MPS daemon {how} (exit code {self.process.returncode})",
                    evidence=self.process.log_tail(10),
                    hint=_NO_PARTITIONS if static else _NOT_STARTED,
                )
            answer = await self.control.ask("get_default_active_thread_percentage")
            if answer.returncode == 0 and re.fullmatch(r"\d+\.\d+\s*", answer.output):
                return
            await asyncio.sleep(0.05)
        raise PartitionError(
            f"the MPS daemon did not answer within {_READY_S:g} s",
            evidence=self.process.log_tail(10),
            hint=_NOT_STARTED,
        )

    async def stop(self) -> None:
        """Ask it to quit within a limit, then make it.

        Raises:
            PartitionError: something of it is left.
        """
        try:
            if self.process.returncode is None:
                await self.control.quit()
        except PartitionError as error:
            # A server that reacts to nothing keeps it from quitting; what counts is that nothing of
            # it is left.
            self._scope.events.emit("mps.quit_failed", pid=self.process.pid, reason=error.message)
        finally:
            await self.process.stop(grace_s=_STOP_S)
        if self.process.returncode is None or self.process.tree():
            raise PartitionError(
                "the MPS daemon could not be stopped", evidence=self.process.log_tail(10)
            )


@asynccontextmanager
async def mps_daemon(
    device: Device, scope: RunScope, driver_env: Mapping[str, str], *, static: bool = False
) -> AsyncIterator[MpsDaemon]:
    """A private daemon for one device, ready to take clients; gone at the end.

    Before one of its clients is killed, it is told to let go of it. ``static``: for static
    partitions of the SMs.

    Raises:
        PartitionError: it cannot be started, or could not be stopped.
    """
    # No tenant's name has capitals, so no server's folder is one of these.
    pipe_dir, log_dir = scope.slot_dir("MPS-pipe"), scope.slot_dir("MPS-log")
    if len(str(pipe_dir)) > _LONGEST_PIPE:
        raise PartitionError(
            f"the path {pipe_dir} is too long for the MPS daemon's socket",
            hint="set TMPDIR to a short folder",
        )
    step = _intend(pipe_dir, driver_env, scope)
    started_s = time.monotonic()
    control = MpsControl(pipe_dir, scope.labelled(driver_env))
    env = _daemon_env(device, driver_env, pipe_dir, log_dir)
    process = await _spawn(["-S"] if static else [], env, log_dir, scope)
    daemon = MpsDaemon(process, control, scope)
    try:
        await daemon.wait_ready(static=static)
        scope.events.emit(
            "mps.ready",
            pid=process.pid,
            pipe_dir=str(pipe_dir),
            version=daemon.version,
            start_s=time.monotonic() - started_s,
        )
        with scope.guard(lambda pids: terminate_clients(control, pids)):
            yield daemon
    finally:
        await daemon.stop()
        scope.journal.done(step)
        scope.events.emit("mps.stopped", pid=process.pid)


def _intend(pipe_dir: Path, driver_env: Mapping[str, str], scope: RunScope) -> int:
    """Write down how the daemon is ended, and how it lets go of its clients before they are."""
    command = [sys.executable, "-m", "fairshare.sharing.undo"]
    return scope.journal.intend(
        f"MPS daemon in {pipe_dir}",
        [[*command, "mps", str(pipe_dir)]],
        {**driver_env, **undo_env(), PIPE_VARIABLE: str(pipe_dir)},
        release=[[*command, "mps-clients", str(pipe_dir)]],
    )


async def _spawn(
    flags: Sequence[str], env: Mapping[str, str], log_dir: Path, scope: RunScope
) -> ManagedProcess:
    try:
        return await ManagedProcess.spawn(
            "mps-control",
            [CONTROL, "-f", *flags],
            env=env,
            log_path=log_dir / "daemon.log",
            scope=scope,
            dies_with_us=False,
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
        # It then numbers its devices from 0; clients name theirs by UUID, or by that number.
        env["CUDA_VISIBLE_DEVICES"] = device.id
    return env
