"""What the machine did while a cell ran: ``gpu.csv`` and ``host.csv``.

Times are seconds since the cell's epoch (``time.monotonic_ns``). An absent value is empty.
"""

from __future__ import annotations

import asyncio
import csv
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import astuple, fields
from pathlib import Path
from typing import Protocol

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.devices.host import HostReader
from fairshare.devices.nvml import GpuSample, NvmlUnavailableError
from fairshare.spec.launcher import DeviceKind
from fairshare.units import NS_PER_S

GPU_COLUMNS = ("t_s", *(f.name for f in fields(GpuSample)))
HOST_COLUMNS = ("t_s", "server", "cpu_percent", "rss_bytes")

Row = tuple[float | int | str | None, ...]


class GpuSampler(Protocol):
    """Something that can be asked how a GPU does, real or simulated."""

    def sample(self) -> GpuSample | None:
        """What the GPU says now; None if it says nothing."""
        ...

    def close(self) -> None:
        """Let go of the GPU; a later sample takes it up again."""
        ...


def gpu_sampler(device: Device, driver: Driver) -> tuple[GpuSampler | None, str | None]:
    """NVML's sampler of a device, or None and the reason why there is none."""
    if device.kind is DeviceKind.CPU:
        return None, f"the device is {device.id}, which NVML does not know"
    sampler = driver.nvml.sampler(device.id)
    try:
        sampler.sample()
    except NvmlUnavailableError as error:
        return None, str(error)
    sampler.close()
    return sampler, None


@asynccontextmanager
async def record_gpu(
    sampler: GpuSampler | None, path: Path, epoch_ns: int, interval_s: float
) -> AsyncIterator[str | None]:
    """Sample into ``path`` until the block ends; the sampler is closed then.

    Yields the reason why nothing is recorded (no file is written then), else None.
    """
    if sampler is None:
        yield "there is no GPU to sample"
        return

    def rows() -> list[Row]:
        taken = sampler.sample()
        return [] if taken is None else [astuple(taken)]

    try:
        if (reason := await _why_unreadable(rows)) is not None:
            yield reason
            return
        async with _recording(path, GPU_COLUMNS, rows, epoch_ns, interval_s):
            yield None
    finally:
        sampler.close()


async def _why_unreadable(read: Callable[[], list[Row]]) -> str | None:
    """Take one reading; what keeps the GPU from being read, None if nothing does."""
    try:
        taken = await asyncio.to_thread(read)
    except NvmlUnavailableError as error:  # it was there before: a GPU can fall off its bus
        return str(error)
    return None if taken else "the GPU answers none of the queries"


@asynccontextmanager
async def record_hosts(
    servers: Mapping[str, Callable[[], list[int]]], path: Path, epoch_ns: int, interval_s: float
) -> AsyncIterator[None]:
    """Record CPU and memory of each server's process tree and of the whole machine.

    ``cpu_percent`` is of one core; the machine's rows are called ``(machine)`` and their
    ``rss_bytes`` is all memory that is not available.
    """
    reader = HostReader(servers)
    async with _recording(path, HOST_COLUMNS, reader.rows, epoch_ns, interval_s):
        yield


@asynccontextmanager
async def _recording(
    path: Path,
    columns: tuple[str, ...],
    read: Callable[[], list[Row]],
    epoch_ns: int,
    interval_s: float,
) -> AsyncIterator[None]:
    """Write ``read()`` every interval, read in a thread so that the event loop never waits."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)

        async def once() -> None:
            t_s = round((time.monotonic_ns() - epoch_ns) / NS_PER_S, 6)
            for row in await asyncio.to_thread(read):
                writer.writerow((t_s, *("" if value is None else value for value in row)))
            file.flush()

        async def until_stopped() -> None:
            due_s = time.monotonic()
            while not stop.is_set():
                await once()
                due_s = max(due_s + interval_s, time.monotonic())
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), due_s - time.monotonic())

        # Asked to stop, not cancelled: a reading that is under way in its thread must end first.
        stop = asyncio.Event()
        task = asyncio.create_task(until_stopped(), name=f"record {path.name}")
        try:
            yield
        finally:
            stop.set()
            await task
