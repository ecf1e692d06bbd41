"""The load spread over several processes: one barrier, one clock, raw records brought together.

A tenant belongs to one process. Percentiles are never merged: every record comes home.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fairshare.errors import FairshareError, SpecError
from fairshare.load.accounts import merged
from fairshare.load.flights import Sink
from fairshare.load.load import DriveReport, TenantLoad
from fairshare.load.messages import (
    Done,
    Failed,
    Go,
    Hello,
    InFlight,
    Order,
    Phase,
    Records,
    Stop,
    receive,
    send,
)
from fairshare.load.pulse import OnPulse
from fairshare.load.transports import DEFAULT_TRANSPORT
from fairshare.processes.scope import RunScope
from fairshare.processes.spawn import ManagedProcess
from fairshare.records import RequestRecord, TransportKind
from fairshare.spec.scenario import Timing

LEAD_S = 0.1  # from the last process's readiness to the barrier: time for the word to get round
_START_S = 60.0
_STOP_S = 1.0
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class _Worker:
    """A process and the line to it."""

    process: ManagedProcess
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    on_phase: Callable[[str], None] = lambda _name: None
    on_pulse: OnPulse = lambda _requests: None
    report: DriveReport | None = None

    async def get(self) -> Any:
        """The next message but those that begin a phase or tell of it, which are passed on.

        Raises:
            FairshareError: the process ended.
            Exception: what ended its drive.
        """
        while isinstance(message := await receive(self.reader), Phase | InFlight):
            if isinstance(message, Phase):
                self.on_phase(message.name)
            else:
                self.on_pulse(message.requests)
        if isinstance(message, Failed):
            raise message.error
        if message is None:
            raise self.lost()
        return message

    def lost(self) -> FairshareError:
        """The process ended before it was done."""
        return FairshareError(
            f"the {self.process.name} process ended before the cell did",
            evidence=self.process.log_tail(10),
            hint="its tenants' records are incomplete, so the cell does not count",
        )


async def drive_in_processes(
    loads: Sequence[TenantLoad],
    timing: Timing,
    sink: Sink,
    *,
    processes: int,
    scope: RunScope,
    stop: asyncio.Event,
    on_window: Callable[[str], None] | None = None,
    on_pulse: OnPulse | None = None,
    transport: TransportKind = DEFAULT_TRANSPORT,
) -> DriveReport:
    """As :func:`fairshare.load.driver.drive`, with the tenants spread over ``processes``.

    Raises:
        SpecError: the window ends by requests or rounds, which no process could tell alone.
        FairshareError: a process died.
        Exception: whatever ``sink`` raised, or a process's own drive.
    """
    if timing.requests is not None or timing.rounds is not None:
        raise SpecError(
            "a window that ends by requests or rounds needs a single load process",
            hint="leave out --load-processes, or let the window end by time",
        )
    crews = spread(loads, processes)
    async with _workers(len(crews), scope) as workers:
        if on_window is not None:
            workers[0].on_phase = on_window  # one voice is enough
        if on_pulse is not None:
            for worker in workers:
                worker.on_pulse = on_pulse
        for worker, crew in zip(workers, crews, strict=True):
            send(worker.writer, Order(crew, timing, transport))
        for worker in workers:
            await worker.get()  # Ready
        origin_ns = time.monotonic_ns() + round(LEAD_S * 1e9)
        for worker in workers:
            send(worker.writer, Go(origin_ns))
        stopping = asyncio.create_task(_pass_on(stop, workers))
        try:
            async with asyncio.TaskGroup() as group:
                for worker in workers:
                    group.create_task(_collect(worker, sink))
        except* Exception as errors:
            raise errors.exceptions[0] from None
        finally:
            stopping.cancel()
    return merged([worker.report for worker in workers if worker.report is not None])


def spread(loads: Sequence[TenantLoad], processes: int) -> list[list[TenantLoad]]:
    """Tenants by process: the heaviest first, each to whoever has least; none is left idle."""
    crews: list[list[TenantLoad]] = [[] for _ in range(min(processes, len(loads)))]
    weights = [0] * len(crews)
    for load in sorted(loads, key=lambda each: -(each.concurrency or 1)):
        lightest = weights.index(min(weights))
        crews[lightest].append(load)
        weights[lightest] += load.concurrency or 1
    return crews


async def _pass_on(stop: asyncio.Event, workers: Sequence[_Worker]) -> None:
    await stop.wait()
    for worker in workers:
        send(worker.writer, Stop())


async def _collect(worker: _Worker, sink: Sink) -> None:
    while worker.report is None:
        message = await worker.get()
        if isinstance(message, Done):
            worker.report = message.report
        elif isinstance(message, Records):
            for line in message.lines.split(b"\n"):
                sink(RequestRecord.from_mapping(orjson.loads(line)))


@asynccontextmanager
async def _workers(count: int, scope: RunScope) -> AsyncIterator[list[_Worker]]:
    """So many processes, connected; ended at the end, whatever way that comes."""
    folder = scope.slot_dir("load-processes")
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{scope.next_serial()}.sock"
    callers: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    async with AsyncExitStack() as stack:
        listening = await asyncio.start_unix_server(
            lambda reader, writer: callers.put_nowait((reader, writer)), path
        )
        stack.callback(path.unlink, missing_ok=True)
        stack.callback(listening.close)
        processes = []
        for number in range(count):
            process = await _spawn(number, path, scope)
            stack.push_async_callback(process.stop, _STOP_S)
            processes.append(process)
        workers: dict[int, _Worker] = {}
        while len(workers) < count:
            reader, writer = await _first_of(callers, processes)
            stack.callback(writer.close)
            hello = await receive(reader)
            if isinstance(hello, Hello):
                workers[hello.number] = _Worker(processes[hello.number], reader, writer)
        yield [workers[number] for number in range(count)]


async def _spawn(number: int, path: Path, scope: RunScope) -> ManagedProcess:
    paths = [str(_PACKAGE_PARENT), os.environ.get("PYTHONPATH")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [sys.executable, "-m", "fairshare.load.worker", str(path), str(number)]
    log_path = path.with_name(f"{path.stem}-{number}.log")
    return await ManagedProcess.spawn(
        f"load-{number}", command, env=env, log_path=log_path, scope=scope
    )


async def _first_of(
    callers: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]],
    processes: Sequence[ManagedProcess],
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The next process to call, unless one ends before."""
    call = asyncio.ensure_future(callers.get())
    ends = [asyncio.ensure_future(process.wait()) for process in processes]
    try:
        await asyncio.wait([call, *ends], timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        if call.done():
            return call.result()
    finally:
        for task in (call, *ends):
            task.cancel()
    dead = next((each for each in processes if each.returncode is not None), processes[0])
    raise FairshareError(f"the {dead.name} process did not start", evidence=dead.log_tail(10))
