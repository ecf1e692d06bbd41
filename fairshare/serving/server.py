"""One server: started, ready or diagnosed, watched while it runs, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiohttp

from fairshare.errors import ServerError
from fairshare.events import EventLog
from fairshare.processes.scope import RunScope
from fairshare.processes.spawn import ManagedProcess
from fairshare.serving.command import ServerCommand
from fairshare.serving.diagnosis import KILLED_HINT, exit_text, first_error, hint_for
from fairshare.serving.plugins import DECISIONS_VARIABLE, SOCKET_VARIABLE
from fairshare.serving.probes import NotHttpError, get, new_session
from fairshare.serving.readiness import NeverReadyError, wait_until_ready
from fairshare.sharing.plan import ServerView
from fairshare.spec.launcher import Launcher

_WATCH_S = 0.5
_UNHEALTHY_S = 1.0
_LOG_LINES = 40
_SEARCHED_LINES = 2000
# vLLM ignores SIGTERM while its engine comes up, so there is nothing to wait for.
_NOT_READY_GRACE_S = 0.5


class ServerState(StrEnum):
    """Where a server is in its life."""

    NEW = "new"  # nothing has been started
    STARTING = "starting"  # its process runs, but it does not answer as it should yet
    READY = "ready"  # it answers
    DRAINING = "draining"  # it was asked to stop
    STOPPED = "stopped"  # it stopped because it was asked to
    FAILED = "failed"  # it was never ready, or died without being asked


class Server:
    """One server and what a client must know of it.

    ``base_url`` has no slash at its end; ``served_model`` is the name to ask for (a tenant with an
    adapter asks for :meth:`model_for`); ``died`` is set when the server is gone without being
    asked; ``start_s`` is the time from its start until it was ready; ``cold`` says that no server
    had ever become ready with its compile cache. ``process`` is None where somebody else runs it.
    """

    def __init__(
        self,
        name: str,
        launcher: Launcher,
        *,
        base_url: str,
        served_model: str,
        api_key: str | None,
        events: EventLog,
        adapters: Collection[str] = (),
        cold: bool = False,
    ) -> None:
        self.name = name
        self.launcher = launcher
        self.base_url = base_url
        self.served_model = served_model
        self.api_key = api_key
        self.adapters = frozenset(adapters)
        self.cold = cold
        self.state = ServerState.NEW
        self.process: ManagedProcess | None = None
        self.died = asyncio.Event()
        self.start_s = 0.0
        self._events = events
        self._reason = "has not failed"
        self._hung = False
        self._command: ServerCommand | None = None
        self._session: aiohttp.ClientSession | None = None
        self._watcher: asyncio.Task[None] | None = None

    def pids(self) -> list[int]:
        """The processes of this server that run now."""
        return self.process.tree() if self.process is not None else []

    @property
    def engine_socket(self) -> Path | None:
        """Where the engine takes requests without HTTP, None where it does not."""
        return self._path(SOCKET_VARIABLE)

    @property
    def engine_decisions(self) -> Path | None:
        """Where the engine writes what its fair scheduler decides, None where it has none."""
        return self._path(DECISIONS_VARIABLE)

    def _path(self, variable: str) -> Path | None:
        path = None if self._command is None else self._command.env.get(variable)
        return None if path is None else Path(path)

    def view(self, probe: Mapping[str, Any] | None = None) -> ServerView:
        """What its share can be verified by; ``probe``: what was seen of it before the start."""
        if self._command is None:
            return ServerView(self.pids(), probe=probe)
        told = self._command
        return ServerView(self.pids(), told.reports, told.kv_bytes, probe)

    def model_for(self, tenant: str) -> str:
        """The model name that this tenant must ask for: its adapter's, or the base model's."""
        return tenant if tenant in self.adapters else self.served_model

    async def start(
        self,
        command: ServerCommand,
        *,
        secrets: Mapping[str, str],
        scope: RunScope,
        log_path: Path,
        cpu_set: Sequence[int] | None = None,
    ) -> None:
        """Start the process and return when the server is ready.

        Raises:
            ServerError: it will not be ready; nothing of it is left running.
            PreflightError: a core of ``cpu_set`` cannot be had.
        """
        self.state = ServerState.STARTING
        self._command = command
        self._emit("server.starting", port=command.port, cold=self.cold)
        started_s = time.monotonic()
        self._session = new_session()
        env = {**command.env, **secrets}
        try:
            self.process = await ManagedProcess.spawn(
                self.name, command.argv, env=env, log_path=log_path, scope=scope, cpu_set=cpu_set
            )
            await self._until_ready(self.process, self._session)
        except NeverReadyError as error:
            self._fail(str(error), "server.failed")
            diagnosis = self.diagnosis()
            await self.stop()
            raise diagnosis from None
        except BaseException:
            self.state = ServerState.FAILED
            await self.stop()
            raise
        self.start_s = time.monotonic() - started_s
        self.state = ServerState.READY
        self._watcher = asyncio.create_task(self._watch(self.process, self._session))
        self._emit(
            "server.ready", start_s=round(self.start_s, 3), cold=self.cold, pid=self.process.pid
        )

    async def stop(self) -> None:
        """Ask the server to stop, then make it; return when nothing of it runs. Idempotent."""
        if self._watcher is not None:
            self._watcher.cancel()
            # Not awaited itself: a cancellation of ours would be taken for the watcher's own.
            await asyncio.wait({self._watcher})
            self._watcher = None
        started_s = time.monotonic()
        failed = self.state is ServerState.FAILED
        ready = self.state is ServerState.READY
        if self.process is not None and self.state is not ServerState.STOPPED:
            if not failed:
                self.state = ServerState.DRAINING
            await self.process.stop(self.launcher.stop_grace_s if ready else _NOT_READY_GRACE_S)
            self._emit("server.stopped", duration_s=round(time.monotonic() - started_s, 3))
        if not failed:
            self.state = ServerState.STOPPED
        if self._session is not None:
            await self._session.close()
            self._session = None

    def give_up(self, reason: str) -> None:
        """Count the server as dead although its process runs; ``reason`` completes its name."""
        self._hung = True
        self._fail(reason, "server.died")

    def diagnosis(self) -> ServerError:
        """Why the server failed: how it ended, the first real error, its last log lines, a hint."""
        if self.process is None:
            return ServerError(f"server {self.name} {self._reason}")
        tail = self.process.log_tail(_LOG_LINES)
        cause = first_error(self.process.log_tail(_SEARCHED_LINES))
        message = f"server {self.name} {self._reason}" + (f": {cause}" if cause else "")
        hint = hint_for(cause or "\n".join(tail))
        # A program that ends itself with an error code was not killed.
        worked = self.start_s > 0 and not self._hung and (self.process.returncode or 0) <= 0
        if hint is None and cause is None and worked:  # until it did not
            hint = KILLED_HINT
        where = f"the whole log is {self.process.log_path}"
        return ServerError(message, evidence=tail, hint=f"{hint}; {where}" if hint else where)

    async def _until_ready(self, process: ManagedProcess, session: aiohttp.ClientSession) -> None:
        await wait_until_ready(
            process,
            session,
            self.launcher,
            base_url=self.base_url,
            served_model=self.served_model,
            api_key=self.api_key,
        )
        if self.engine_socket is not None and not self.engine_socket.is_socket():
            raise NeverReadyError("is ready, but takes no requests without HTTP")
        process.note_segments()  # while it lives: who kills it later also kills its tidying

    async def _watch(self, process: ManagedProcess, session: aiohttp.ClientSession) -> None:
        """Wait until the process ends or says for a while that its engine is dead (503)."""
        exited = asyncio.ensure_future(process.wait())
        unhealthy_since_s: float | None = None
        try:
            while not (await asyncio.wait({exited}, timeout=_WATCH_S))[0]:
                reply = None
                with contextlib.suppress(NotHttpError):
                    reply = await get(
                        session, self.base_url + self.launcher.health_path, self.api_key
                    )
                now_s = time.monotonic()
                if reply is None or reply.status != 503:
                    unhealthy_since_s = None
                    continue
                unhealthy_since_s = unhealthy_since_s or now_s
                if now_s - unhealthy_since_s > _UNHEALTHY_S:
                    path = self.launcher.health_path
                    self._fail(f"lost its engine: {path} answers 503", "server.died")
                    return
            # Exit code 0 is no success either: vLLM exits so when its engine was killed.
            self._fail(f"{exit_text(exited.result())} without being asked to", "server.died")
        finally:
            exited.cancel()

    def _fail(self, reason: str, event: str) -> None:
        self.state = ServerState.FAILED
        self._reason = reason
        self._emit(event, reason=reason)
        self.died.set()

    def _emit(self, event: str, **fields: Any) -> None:
        self._events.emit(event, server=self.name, **fields)
