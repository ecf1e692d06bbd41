"""All servers of one deployment: started, all ready or a diagnosis, stopped."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fairshare.errors import ServerError, SpecError
from fairshare.processes.ports import free_port, is_free
from fairshare.processes.scope import RunScope
from fairshare.results.files import writing
from fairshare.serving.arguments import check_arguments
from fairshare.serving.caches import CompileCache, compile_cache
from fairshare.serving.command import ServerCommand, server_command
from fairshare.serving.environment import inherited_secrets
from fairshare.serving.exposition import fetch_metrics
from fairshare.serving.external import external_servers
from fairshare.serving.interpreter import engine_facts, engine_python
from fairshare.serving.models import ModelFacts
from fairshare.serving.plugins import write_plugins
from fairshare.serving.precheck import check_port, check_slot
from fairshare.serving.probes import new_session
from fairshare.serving.server import Server
from fairshare.sharing.plan import PartitionPlan, Slot
from fairshare.spec.launcher import Engine, Launcher

_IDLE_POLL_S = 0.2


class Fleet:
    """The running servers of a deployment, by name of their slot (or external endpoint)."""

    def __init__(self, servers: Mapping[str, Server], by_tenant: Mapping[str, str]) -> None:
        self.servers = dict(servers)
        self._by_tenant = dict(by_tenant)

    def server_of(self, tenant: str) -> Server:
        """The server that serves a tenant.

        Raises:
            KeyError: no server does.
        """
        return self.servers[self._by_tenant[tenant]]

    def dead(self) -> Server | None:
        """A server that died without being asked to, if there is one."""
        return next((server for server in self.servers.values() if server.died.is_set()), None)

    async def wait_idle(self, timeout_s: float) -> None:
        """Return when no server has a request running or waiting.

        A server without metrics cannot be asked and counts as idle.

        Raises:
            ServerError: one died, or is still busy after ``timeout_s``.
        """
        deadline_s = time.monotonic() + timeout_s
        async with new_session() as session:
            for server in self.servers.values():
                while True:
                    if server.died.is_set():
                        raise server.diagnosis()
                    metrics = await fetch_metrics(session, server)
                    if metrics is None or metrics.busy == 0:
                        break
                    if time.monotonic() > deadline_s:
                        raise ServerError(
                            f"server {server.name} is still busy after {timeout_s:g} s: "
                            f"{metrics.running:g} running, {metrics.waiting or 0:g} waiting"
                        )
                    await asyncio.sleep(_IDLE_POLL_S)


@dataclass(frozen=True, slots=True)
class _Planned:
    """A server whose start has been checked as far as possible; ``port`` is one asked for."""

    slot: Slot
    cache: CompileCache | None
    run_dir: Path
    port: int | None
    command: Callable[..., ServerCommand]


@dataclass(frozen=True, slots=True)
class _Started:
    """A server that has (or may have) a process."""

    server: Server
    port: int
    run_dir: Path


@asynccontextmanager
async def fleet(  # noqa: PLR0917  (one argument for each thing a deployment consists of)
    plan: PartitionPlan,
    launcher: Launcher,
    models: Mapping[str, ModelFacts],
    scope: RunScope,
    log_dir: Path,
    api_key: str,
) -> AsyncIterator[Fleet]:
    """The servers of a plan, all ready. ``models`` is by ``slot.model``.

    Each writes ``<log_dir>/<slot>.log``; ``<slot>.cmd`` holds its command without secrets. On exit
    all are stopped, and that their processes, ports, files and shared memory are gone is verified.

    Raises:
        SpecError, InfeasibleError, PreflightError: a server cannot be started as asked.
        ServerError: one was never ready (and why), or something of one is left at the end.
    """
    if launcher.engine is Engine.EXTERNAL:
        tenants = [tenant for slot in plan.slots for tenant in slot.tenants]
        yield Fleet(*await external_servers(launcher, tenants, scope.events))
        return
    planned = await _plan(plan, launcher, models, scope)
    started: list[_Started] = []
    try:
        at_once = _at_once(plan, planned)
        start = partial(
            _start,
            launcher=launcher,
            scope=scope,
            log_dir=log_dir,
            api_key=api_key,
            started=started,
        )
        for first in range(0, len(planned), at_once):
            await _all([start(one) for one in planned[first : first + at_once]])
        by_tenant = {tenant: slot.name for slot in plan.slots for tenant in slot.tenants}
        yield Fleet({one.server.name: one.server for one in started}, by_tenant)
    except BaseException:
        await _stop(started, scope)  # leftovers are told as events; the error goes first
        raise
    leftovers = await _stop(started, scope)
    if leftovers:
        hint = "fairshare clean removes what can be removed"
        raise ServerError("the servers left something behind", evidence=leftovers, hint=hint)


async def _plan(
    plan: PartitionPlan, launcher: Launcher, models: Mapping[str, ModelFacts], scope: RunScope
) -> list[_Planned]:
    """Everything that can go wrong before the first process is started."""
    python = await asyncio.to_thread(engine_python, launcher)
    await asyncio.to_thread(check_arguments, launcher, python)
    facts = await asyncio.to_thread(engine_facts, launcher, python)
    planned = []
    for index, slot in enumerate(plan.slots):
        model = models[slot.model]
        check_slot(launcher, slot, model, plan.device)
        cache = None
        if launcher.engine is not Engine.VIRTUAL:
            cache = compile_cache(facts, launcher, model, adapters=bool(slot.adapters))
        run_dir = scope.slot_dir(slot.name)
        command = partial(
            server_command,
            launcher,
            slot,
            model,
            device=plan.device,
            run_dir=run_dir,
            python=python,
            cache=cache,
        )
        port = _port_asked_for(launcher, index)
        command(port=port or 1)  # for its errors
        planned.append(_Planned(slot, cache, run_dir, port, command))
    return planned


def _port_asked_for(launcher: Launcher, index: int) -> int | None:
    """``args.port`` and the following ones, None if it is ours to choose."""
    first = launcher.args.get("port")
    if first is None:
        return None
    if not isinstance(first, int) or isinstance(first, bool):
        raise SpecError(f"args.port is {first!r}, which is not a port")
    check_port(first + index)
    return first + index


def _at_once(plan: PartitionPlan, planned: Sequence[_Planned]) -> int:
    """How many servers start at once: two that size themselves at once both get it wrong.

    Where each is told how much to hold and none compiles, on CPUs as many as there are cores: what
    a start takes there is one core's time (benchmarks/README.md). On GPUs it was not measured.
    """
    told = all(one.command(port=1).kv_bytes is not None for one in planned)
    warm = all(one.cache is None or not one.cache.cold for one in planned)
    return len(plan.device.cores) if told and warm and plan.device.cores else 1


async def _all(starts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all; when one fails, the others are given up first, and its error is raised."""
    tasks = [asyncio.ensure_future(each) for each in starts]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise


async def _start(
    one: _Planned,
    launcher: Launcher,
    scope: RunScope,
    log_dir: Path,
    *,
    api_key: str,
    started: list[_Started],
) -> None:
    # Chosen only now, since others may take a free port while the servers before start.
    port = one.port or _another_port(started)
    command = one.command(port=port)
    server = Server(
        one.slot.name,
        launcher,
        base_url=command.base_url,
        served_model=command.served_model,
        api_key=api_key if launcher.api_key_env else None,
        events=scope.events,
        adapters=one.slot.adapters,
        cold=one.cache is not None and one.cache.cold,
    )
    started.append(_Started(server, port, one.run_dir))
    _make_folders(one, command, log_dir)
    secrets = inherited_secrets(os.environ)
    if launcher.api_key_env:
        secrets[launcher.api_key_env] = api_key
    log_path = log_dir / f"{one.slot.name}.log"
    await server.start(
        command, secrets=secrets, scope=scope, log_path=log_path, cpu_set=one.slot.cpu_set
    )
    if one.cache is not None:
        one.cache.complete()


def _another_port(started: Sequence[_Started]) -> int:
    """A free port that none of those has been given, who may not have taken it yet."""
    given = {each.port for each in started}
    return next(port for port in iter(free_port, None) if port not in given)


def _make_folders(one: _Planned, command: ServerCommand, log_dir: Path) -> None:
    log_dir.mkdir(parents=True, exist_ok=True)
    cores = f"# bound to CPU cores {one.slot.cpu_set}\n" if one.slot.cpu_set else ""
    shown = log_dir / f"{one.slot.name}.cmd"
    with writing(shown):
        shown.write_text(f"{cores}{command.shown()}\n", "utf-8")
    # Made again if an earlier deployment of this run had a slot of this name.
    one.run_dir.mkdir(mode=0o700, exist_ok=True)
    if command.reports is not None:
        write_plugins(one.run_dir)
    if one.cache is not None:
        one.cache.prepare()


async def _stop(started: list[_Started], scope: RunScope) -> list[str]:
    """Stop all servers at once; return what of them is left, each also an event."""
    outcomes = await asyncio.gather(*(one.server.stop() for one in started), return_exceptions=True)
    leftovers = []
    for one, outcome in zip(started, outcomes, strict=True):
        found = [f"stopping failed: {outcome}"] if isinstance(outcome, BaseException) else []
        found += await asyncio.to_thread(_left_of, one)
        for what in found:
            scope.events.emit("server.leftover", server=one.server.name, what=what)
            leftovers.append(f"{one.server.name}: {what}")
    return leftovers


def _left_of(one: _Started) -> list[str]:
    left = []
    if one.server.process is not None:
        left += [f"process {pid} still runs" for pid in one.server.pids()]
        segments = one.server.process.segments_left()
        left += [f"shared memory {name} is still there" for name in segments]
        if not is_free(one.port):
            left.append(f"port {one.port} is still taken")
    shutil.rmtree(one.run_dir, ignore_errors=True)
    if one.run_dir.exists():
        left.append(f"{one.run_dir} could not be removed")
    return left
