"""All servers of one deployment: started one after another, all ready or a diagnosis, stopped."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fairshare.errors import ServerError
from fairshare.processes.ports import free_port, is_free
from fairshare.processes.scope import RunScope
from fairshare.serving.arguments import check_arguments
from fairshare.serving.caches import CompileCache, compile_cache
from fairshare.serving.command import ServerCommand, server_command
from fairshare.serving.environment import inherited_secrets
from fairshare.serving.exposition import fetch_metrics
from fairshare.serving.external import external_servers
from fairshare.serving.interpreter import engine_facts, engine_python
from fairshare.serving.models import ModelFacts
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
class _Prepared:
    """A server about to be started."""

    slot: Slot
    server: Server
    command: ServerCommand
    cache: CompileCache
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
    all are stopped, and that their processes, ports and files are gone is verified.

    Raises:
        SpecError, InfeasibleError, PreflightError: a server cannot be started as asked.
        ServerError: one was never ready (and why), or something of one is left at the end.
    """
    if launcher.engine is Engine.EXTERNAL:
        tenants = [tenant for slot in plan.slots for tenant in slot.tenants]
        yield Fleet(*await external_servers(launcher, tenants, scope.events))
        return
    prepared = await _prepare(plan, launcher, models, scope, api_key)
    try:
        # One after another: two that size themselves at once both get it wrong.
        for one in prepared:
            await _start(one, launcher, scope, log_dir, api_key)
        by_tenant = {tenant: one.slot.name for one in prepared for tenant in one.slot.tenants}
        yield Fleet({one.slot.name: one.server for one in prepared}, by_tenant)
    except BaseException:
        await _stop(prepared, scope)  # leftovers are told as events; the error goes first
        raise
    leftovers = await _stop(prepared, scope)
    if leftovers:
        hint = "fairshare clean removes what can be removed"
        raise ServerError("the servers left something behind", evidence=leftovers, hint=hint)


async def _prepare(
    plan: PartitionPlan,
    launcher: Launcher,
    models: Mapping[str, ModelFacts],
    scope: RunScope,
    api_key: str,
) -> list[_Prepared]:
    """Everything that can go wrong before the first process is started."""
    python = await asyncio.to_thread(engine_python, launcher)
    await asyncio.to_thread(check_arguments, launcher, python)
    facts = await asyncio.to_thread(engine_facts, launcher, python)
    prepared = []
    for index, slot in enumerate(plan.slots):
        model = models[slot.model]
        check_slot(launcher, slot, model)
        port = _port(launcher, index)
        cache = compile_cache(facts, launcher, model, adapters=bool(slot.adapters))
        run_dir = scope.slot_dir(slot.name)
        command = server_command(
            launcher, slot, model, port=port, run_dir=run_dir, python=python, cache=cache
        )
        server = Server(
            slot.name,
            launcher,
            base_url=command.base_url,
            served_model=command.served_model,
            api_key=api_key if launcher.api_key_env else None,
            events=scope.events,
            adapters=slot.adapters,
            cold=cache.cold,
        )
        prepared.append(_Prepared(slot, server, command, cache, run_dir))
    return prepared


def _port(launcher: Launcher, index: int) -> int:
    """``args.port`` and the following ones, else any free one."""
    first = launcher.args.get("port")
    if not isinstance(first, int):
        return free_port()
    check_port(first + index)
    return first + index


async def _start(
    one: _Prepared, launcher: Launcher, scope: RunScope, log_dir: Path, api_key: str
) -> None:
    _make_folders(one, log_dir)
    secrets = inherited_secrets(os.environ)
    if launcher.api_key_env:
        secrets[launcher.api_key_env] = api_key
    one.server.cold = one.cache.cold  # an earlier server of this fleet may have warmed it
    await one.server.start(
        one.command,
        secrets=secrets,
        scope=scope,
        log_path=log_dir / f"{one.slot.name}.log",
        cpu_set=one.slot.cpu_set,
    )
    one.cache.complete()


def _make_folders(one: _Prepared, log_dir: Path) -> None:
    log_dir.mkdir(parents=True, exist_ok=True)
    (log_dir / f"{one.slot.name}.cmd").write_text(one.command.shown() + "\n", "utf-8")
    # Made again if an earlier deployment of this run had a slot of this name.
    one.run_dir.mkdir(mode=0o700, exist_ok=True)
    one.cache.prepare()


async def _stop(prepared: list[_Prepared], scope: RunScope) -> list[str]:
    """Stop all servers at once; return what of them is left, each also an event."""
    outcomes = await asyncio.gather(
        *(one.server.stop() for one in prepared), return_exceptions=True
    )
    leftovers = []
    for one, outcome in zip(prepared, outcomes, strict=True):
        found = [f"stopping failed: {outcome}"] if isinstance(outcome, BaseException) else []
        found += await asyncio.to_thread(_left_of, one)
        for what in found:
            scope.events.emit("server.leftover", server=one.slot.name, what=what)
            leftovers.append(f"{one.slot.name}: {what}")
    return leftovers


def _left_of(one: _Prepared) -> list[str]:
    if one.server.process is None:
        return []
    left = [f"process {pid} still runs" for pid in one.server.pids()]
    if not is_free(one.command.port):
        left.append(f"port {one.command.port} is still taken")
    shutil.rmtree(one.run_dir, ignore_errors=True)
    if one.run_dir.exists():
        left.append(f"{one.run_dir} could not be removed")
    return left
