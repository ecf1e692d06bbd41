"""One cell: idle servers, warm-up, measured window, drain, and an account of how it went."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fairshare.devices.telemetry import GpuSampler, record_gpu, record_hosts
from fairshare.errors import FairshareError, StoppedEarlyError
from fairshare.events import EventLog
from fairshare.load.crew import drive_in_processes
from fairshare.load.driver import drive
from fairshare.load.load import DriveReport, TenantLoad
from fairshare.load.probe import answers
from fairshare.processes.scope import RunScope
from fairshare.records import (
    CellResult,
    CellStatus,
    Mark,
    RequestRecord,
)
from fairshare.results import layout
from fairshare.results.files import writing
from fairshare.results.store import ResultStore
from fairshare.results.writer import CellWriter
from fairshare.runner.account import Account
from fairshare.runner.dilation import Counted, counted, dilation, too_slow
from fairshare.runner.foreign import ForeignWatch
from fairshare.runner.gateway import Gateway, gateway_for
from fairshare.runner.loads import cell_loads
from fairshare.runner.plan import PlannedCell, plain
from fairshare.runner.progress import CellProgress, LastSample
from fairshare.runner.settings import Settings
from fairshare.runner.slowdowns import SlowdownWatch
from fairshare.serving.fleet import Fleet
from fairshare.serving.metrics import MetricsScraper
from fairshare.sharing.plan import PartitionPlan
from fairshare.sharing.slots import PROVENANCE
from fairshare.spec.launcher import DeviceKind

IDLE_TIMEOUT_S = 60.0
TELEMETRY_INTERVAL_S = 0.5
PROBE_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class CellContext:
    """What the cells of one deployment have in common.

    ``shares``: as seen from inside; ``health`` tells why they are not in force any more, if so.
    """

    settings: Settings
    plan: PartitionPlan
    fleet: Fleet
    deployment: str
    shares: list[dict[str, Any]]
    health: Callable[[], Awaitable[str | None]]
    sampler: GpuSampler | None
    events: EventLog
    scope: RunScope
    stop: asyncio.Event


def blank_result(
    cell: PlannedCell, settings: Settings, plan: PartitionPlan | None, status: CellStatus
) -> CellResult:
    """The result of a cell before, or without, any measurement."""
    return CellResult(
        id=cell.id,
        key=cell.key,
        status=status,
        label=plan.label if plan else cell.key.mode.value,
        provenance=plan.provenance if plan else PROVENANCE[settings.device.kind],
        notes=list(plan.notes) if plan else [],
        fingerprint=cell.fingerprint,
        tenants=[
            {
                "name": tenant.name,
                "weight": tenant.weight,
                "open_loop": tenant.arrival.kind != "closed",
                "slo": tenant.slo.model_dump(exclude_none=True),
            }
            for tenant in cell.tenants
        ],
    )


def file_unmeasured(
    store: ResultStore,
    cell: PlannedCell,
    settings: Settings,
    plan: PartitionPlan | None,
    *,
    status: CellStatus,
    reason: str,
) -> CellResult:
    """File a cell that was never measured, and why."""
    writer = store.begin_cell(cell.id)
    writer.write_config(plain(cell.definition))
    result = blank_result(cell, settings, plan, status)
    result.reason = reason
    writer.finish(result)
    return result


def tell_finished(events: EventLog, result: CellResult) -> None:
    """Tell whoever listens what became of a cell."""
    events.emit(
        "cell.finished",
        cell=result.id,
        label=result.mode_label,
        status=result.status.value,
        reason=result.reason,
    )


async def run_cell(cell: PlannedCell, context: CellContext, writer: CellWriter) -> CellResult:
    """Measure one cell on servers that are ready; whatever happens ends in a result.

    Raises:
        StoppedEarlyError: the results can no longer be written.
        asyncio.CancelledError: stopped at once; the caller marks the cell interrupted.
    """
    result = blank_result(cell, context.settings, context.plan, CellStatus.OK)
    result.deployment = context.deployment
    result.shares = context.shares
    result.started_at = time.time()
    account = Account()
    driver, device = context.settings.driver, context.settings.device
    watch = ForeignWatch(partial(driver.nvml.compute_processes, device.id), context.scope.run_id)
    slowed = None if context.sampler is None else SlowdownWatch(context.sampler)
    try:
        with writing(writer.dir):
            await context.fleet.wait_idle(IDLE_TIMEOUT_S)
            before = await _counted(context)
            report = await _measure(cell, context, writer, account, watch=watch, slowed=slowed)
            result.time_dilation = dilation(before, await _counted(context))
            unhealthy = await _unhealthy(context)
    except StoppedEarlyError:
        raise
    except FairshareError as error:
        result.status, result.reason = CellStatus.FAILED, str(error)
        return result
    result.window_ns, result.end_ns = report.window_ns, report.end_ns
    result.client = report.client
    result.marks = _marks(context, report)
    result.status, result.reason = (
        (CellStatus.FAILED, unhealthy) if unhealthy else _verdict(cell, context, report, account)
    )
    if result.status is CellStatus.OK:
        _note_unheard(result, account)
    _note_foreign(result, watch)
    _note_slowed(result, slowed)
    _note_client(result)
    _note_dilation(result)
    return result


async def _counted(context: CellContext) -> dict[str, Counted]:
    """What simulated servers count of real and simulated time; others do not."""
    simulated = context.settings.device.kind is DeviceKind.VIRTUAL
    return await counted(context.fleet) if simulated else {}


def _note_unheard(result: CellResult, account: Account) -> None:
    unheard = account.unheard([tenant["name"] for tenant in result.tenants])
    if unheard:
        result.marks.append(Mark.WEAK_EVIDENCE)
        result.reason = (
            f"{', '.join(unheard)} began no request in the window, so it has no latencies; "
            "make it longer with --window"
        )


def _note_foreign(result: CellResult, watch: ForeignWatch) -> None:
    if watch.found:
        result.marks.append(Mark.CONTAMINATED)
        others = f"others computed on the GPU in the window: {', '.join(watch.found.values())}"
        result.reason = f"{result.reason}; {others}" if result.reason else others


def _note_slowed(result: CellResult, slowed: SlowdownWatch | None) -> None:
    if slowed is not None and (told := slowed.told) is not None:
        result.marks.append(Mark.CLOCKS_SLOWED)
        result.notes.append(f"{Mark.CLOCKS_SLOWED.value}: {told}")


def _note_client(result: CellResult) -> None:
    """Say beside the figures why they may be the client's own, and what helps."""
    if Mark.CLIENT_LIMITED in result.marks:
        first, *others = result.client["reasons"]
        more = f"; and {len(others)} more in cell.json" if others else ""
        result.notes.append(f"{Mark.CLIENT_LIMITED.value}: {first}{more}")


def _note_dilation(result: CellResult) -> None:
    if (told := too_slow(result.time_dilation)) is not None:
        result.marks.append(Mark.TIME_DILATED)
        result.notes.append(f"{Mark.TIME_DILATED.value}: {told}")


async def _measure(
    cell: PlannedCell,
    context: CellContext,
    writer: CellWriter,
    account: Account,
    *,
    watch: ForeignWatch,
    slowed: SlowdownWatch | None,
) -> DriveReport:
    gpu = None if slowed is None else LastSample(slowed)
    progress = CellProgress(cell.id, cell.tenants, context.events, gpu)

    def sink(record: RequestRecord) -> None:
        account.add(record)
        progress.add(record)
        writer.append(record)

    def on_window(phase: str) -> None:
        context.events.emit("cell.phase", cell=cell.id, phase=phase)
        watch.enter(phase)
        if slowed is not None:
            slowed.enter(phase)

    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(_gateway(cell, context, writer))
        loads = cell_loads(cell, context.plan, context.fleet, context.settings, gateway)
        await stack.enter_async_context(_telemetry(context, writer, gateway, gpu))
        if context.sampler is not None:  # else the device has no list of who computes on it
            await stack.enter_async_context(watch.watching(TELEMETRY_INTERVAL_S))
        halt = await stack.enter_async_context(_halt(context, gateway))
        report = await _drive(context)(
            loads,
            cell.scenario.timing,
            sink,
            stop=halt,
            on_window=on_window,
            on_pulse=progress.pulse,
            transport=context.settings.matrix.transport,
        )
        if gateway is not None and gateway.died.is_set():
            raise gateway.diagnosis()
        if not halt.is_set():
            await _find_hung(loads, context, account)
    return report


def _gateway(
    cell: PlannedCell, context: CellContext, writer: CellWriter
) -> AbstractAsyncContextManager[Gateway | None]:
    """The cell's own gateway, so that no policy remembers what an earlier cell did."""
    server = context.fleet.server_of(cell.tenants[0].name)
    return gateway_for(
        cell,
        context.settings,
        plan=context.plan,
        server=server,
        scope=context.scope,
        folder=writer.dir,
    )


def _drive(context: CellContext) -> Callable[..., Awaitable[DriveReport]]:
    """Who drives the load: this process, or several."""
    processes = context.settings.matrix.load_processes
    if processes == 1:
        return drive
    return partial(drive_in_processes, processes=processes, scope=context.scope)


async def _find_hung(loads: Sequence[TenantLoad], context: CellContext, account: Account) -> None:
    """Count a server as dead that says nothing although nobody asks it for anything any more.

    Every request has been cancelled by now, so one of a single token is answered at once, unless
    the engine hangs. Servers of others may have other clients, and are left alone.
    """
    for load in loads:
        server = context.fleet.server_of(load.tenant.name)
        if load.tenant.name not in account.silent or server.process is None:
            continue
        direct = replace(load.target, base_url=server.base_url, api_key=server.api_key)
        if not server.died.is_set() and not await answers(direct, PROBE_TIMEOUT_S):
            server.give_up(
                f"hangs: with no other request left, one of a single token had no answer after "
                f"{PROBE_TIMEOUT_S:g} s"
            )


async def _unhealthy(context: CellContext) -> str | None:
    """Why the shares were not in force, if so: then every server of the deployment is done for."""
    reason = await context.health()
    if reason is not None:
        context.events.emit("partition.unhealthy", reason=reason)
        for server in context.fleet.servers.values():
            if not server.died.is_set():
                server.give_up(f"is stopped: {reason}")
    return reason


@asynccontextmanager
async def _halt(context: CellContext, gateway: Gateway | None) -> AsyncIterator[asyncio.Event]:
    """An event that is set when the user stops the run, or a server or the gateway dies."""
    halt = asyncio.Event()

    async def watch() -> None:
        waits = [context.stop.wait()]
        waits += [server.died.wait() for server in context.fleet.servers.values()]
        waits += [gateway.died.wait()] if gateway is not None else []
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            halt.set()
        finally:
            for task in tasks:
                task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield halt
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)


@asynccontextmanager
async def _telemetry(
    context: CellContext, writer: CellWriter, gateway: Gateway | None, gpu: GpuSampler | None
) -> AsyncIterator[None]:
    epoch_ns = time.monotonic_ns()
    async with AsyncExitStack() as stack:
        if gpu is not None:
            reason = await stack.enter_async_context(
                record_gpu(gpu, writer.dir / layout.GPU, epoch_ns, TELEMETRY_INTERVAL_S)
            )
            if reason is not None:
                context.events.emit("telemetry.absent", reason=reason)
        pids = {name: server.pids for name, server in context.fleet.servers.items()}
        if gateway is not None:
            pids["(gateway)"] = gateway.process.tree
        await stack.enter_async_context(
            record_hosts(pids, writer.dir / layout.HOST, epoch_ns, TELEMETRY_INTERVAL_S)
        )
        scraper = MetricsScraper(
            context.fleet,
            writer.dir / layout.SERVER_METRICS,
            epoch_ns=epoch_ns,
            interval_s=TELEMETRY_INTERVAL_S,
        )
        await stack.enter_async_context(scraper)
        yield


def _verdict(
    cell: PlannedCell, context: CellContext, report: DriveReport, account: Account
) -> tuple[CellStatus, str | None]:
    dead = context.fleet.dead()
    if dead is not None:
        return CellStatus.FAILED, str(dead.diagnosis())
    if context.stop.is_set() and report.stopped:
        return CellStatus.INTERRUPTED, "stopped by the user"
    failure = account.failure([tenant.name for tenant in cell.tenants])
    return (CellStatus.FAILED, failure) if failure else (CellStatus.OK, None)


def _marks(context: CellContext, report: DriveReport) -> list[Mark]:
    marks = list(context.plan.marks)
    if report.client.get("client_limited"):
        marks.append(Mark.CLIENT_LIMITED)
    device = context.plan.device
    used = {core for slot in context.plan.slots for core in slot.cpu_set or ()}
    if device.kind is DeviceKind.CPU and used >= set(device.cores):
        marks.append(Mark.CLIENT_SHARED)
    return marks
