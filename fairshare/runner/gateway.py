"""The gateway of one cell: a process of its own between the load generator and the server."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fairshare.errors import ServerError
from fairshare.gateway.settings import GatewaySettings, TenantTerms
from fairshare.processes.scope import RunScope
from fairshare.processes.spawn import ManagedProcess
from fairshare.records import Scheduling
from fairshare.results import layout
from fairshare.runner.plan import PlannedCell
from fairshare.runner.settings import Settings
from fairshare.serving.diagnosis import exit_text
from fairshare.serving.environment import inherited, inherited_secrets
from fairshare.serving.server import Server
from fairshare.sharing.plan import PartitionPlan
from fairshare.spec.launcher import DeviceKind, Engine
from fairshare.spec.scenario import Tenant

NAME = "gateway"
_UPSTREAM_KEY = "FAIRSHARE_UPSTREAM_API_KEY"
_READY_S = 30.0
_POLL_S = 0.05
_STOP_GRACE_S = 5.0
_DRAIN_S = 1.0  # a cell's requests have ended, or have been cancelled, before its gateway stops
_LOG_LINES = 40
_NO_LIMIT = 1_000_000  # queued requests; in a measurement the policy alone turns anybody away


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway: where it answers, and each tenant's key.

    ``died`` is set when it is gone without being asked.
    """

    base_url: str
    keys: dict[str, str]
    process: ManagedProcess
    died: asyncio.Event

    def diagnosis(self) -> ServerError:
        """Why it died: how it ended, and its last log lines."""
        how = exit_text(self.process.returncode)
        return _failure(self.process, f"{how} without being asked to")


@asynccontextmanager
async def gateway_for(
    cell: PlannedCell,
    settings: Settings,
    *,
    plan: PartitionPlan,
    server: Server,
    scope: RunScope,
    folder: Path,
) -> AsyncIterator[Gateway | None]:
    """The cell's gateway while the block lasts; None if its policy needs none.

    ``folder`` is the cell's: its log and its decisions are written there.

    Raises:
        ServerError: it is not ready, and why.
    """
    if not cell.scheduler.behind_gateway:
        yield None
        return
    private = scope.slot_dir(NAME)
    private.mkdir(mode=0o700, exist_ok=True)
    keys = {tenant.name: secrets.token_urlsafe(24) for tenant in cell.tenants}
    told = _told(cell, settings, server, folder / layout.SCHEDULING)
    path = private / "settings.json"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(told.model_dump_json(exclude_unset=True))
    variables = {_key_variable(i): key for i, key in enumerate(keys.values())}
    if server.api_key:
        variables[_UPSTREAM_KEY] = server.api_key
    process = await ManagedProcess.spawn(
        NAME,
        [sys.executable, "-m", "fairshare.gateway", "--settings", str(path)],
        env={
            **inherited(os.environ, Engine.VIRTUAL),
            **inherited_secrets(os.environ),
            "TMPDIR": str(private),
            "PYTHONUNBUFFERED": "1",
            **variables,
        },
        log_path=folder / layout.SERVERS / f"{NAME}.log",
        scope=scope,
        cpu_set=spare_cores(plan),
    )
    try:
        port = await _ready(process)
        scope.events.emit("gateway.ready", cell=cell.id, pid=process.pid, port=port)
        died = asyncio.Event()
        watcher = asyncio.create_task(_watch(process, died))
        try:
            yield Gateway(f"http://127.0.0.1:{port}", keys, process, died)
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
    finally:
        await process.stop(_STOP_GRACE_S)
        scope.events.emit("gateway.stopped", cell=cell.id)
        shutil.rmtree(private, ignore_errors=True)


def spare_cores(plan: PartitionPlan) -> Sequence[int] | None:
    """The cores that no server is bound to, where servers are bound to cores and some are left."""
    if plan.device.kind is not DeviceKind.CPU:
        return None
    used = {core for slot in plan.slots for core in slot.cpu_set or ()}
    return sorted(os.sched_getaffinity(0) - used) or None


def _told(cell: PlannedCell, settings: Settings, server: Server, events: Path) -> GatewaySettings:
    longest_s = max(tenant.timeout_s for tenant in cell.tenants)
    return GatewaySettings(
        upstream=server.base_url,
        upstream_key_env=_UPSTREAM_KEY if server.api_key else None,
        policy=cell.scheduler.policy.kind,
        policy_options=dict(cell.scheduler.policy.options),
        tenants={tenant.name: _terms(tenant, i) for i, tenant in enumerate(cell.tenants)},
        max_tenants=max(1000, len(cell.tenants)),
        window=settings.window_of(cell.scheduler),
        max_queued=_NO_LIMIT,
        max_queued_per_tenant=_NO_LIMIT,
        max_queued_bytes=1 << 40,
        ttl_s=longest_s,
        continuous_usage=settings.launcher.continuous_usage,
        send_priority=cell.scheduler.place is Scheduling.PRIORITY,
        upstream_timeout_s=longest_s,
        drain_s=_DRAIN_S,
        event_log=events.resolve(),
    )


def _terms(tenant: Tenant, index: int) -> TenantTerms:
    return TenantTerms(
        weight=tenant.weight,
        slo_ttft_s=tenant.slo.ttft_s,
        slo_e2e_s=tenant.slo.e2e_s,
        key_env=_key_variable(index),
    )


def _key_variable(index: int) -> str:
    return f"FAIRSHARE_TENANT_{index}_API_KEY"


async def _ready(process: ManagedProcess) -> int:
    """The port that it says it listens on."""
    deadline_s = time.monotonic() + _READY_S
    while True:
        exited = process.returncode
        for line in process.log_tail(_LOG_LINES):
            if (port := _port(line)) is not None:
                return port
        if exited is not None:
            raise _failure(process, f"{exit_text(exited)} before it was ready")
        if time.monotonic() > deadline_s:
            raise _failure(process, f"was not ready after {_READY_S:g} s")
        await asyncio.sleep(_POLL_S)


def _port(line: str) -> int | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    port = told.get("port") if isinstance(told, dict) else None
    return port if isinstance(port, int) else None


async def _watch(process: ManagedProcess, died: asyncio.Event) -> None:
    await process.wait()
    died.set()


def _failure(process: ManagedProcess, how: str) -> ServerError:
    return ServerError(
        f"the gateway {how}",
        evidence=process.log_tail(_LOG_LINES),
        hint=f"the whole log is {layout.SERVERS}/{NAME}.log in the cell's folder",
    )
