"""Each server's own figures over time: ``server_metrics.jsonl``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import aiohttp
import orjson

from fairshare.serving.exposition import fetch_metrics
from fairshare.serving.fleet import Fleet
from fairshare.serving.probes import new_session
from fairshare.serving.server import Server
from fairshare.wire.exposition import ServerMetrics


class MetricsScraper:
    """While it is open, writes one line per server and interval.

    A line is ``{"t_ns", "server", "running", "waiting", "kv_usage", "preemptions_total",
    "prompt_tokens_total", "generation_tokens_total"}``; ``t_ns`` counts from ``epoch_ns`` (a
    ``time.monotonic_ns``, by default when the scraper was opened) to when the answer came; what a
    server does not export, or all of it if it does not answer, is null.
    """

    def __init__(
        self,
        fleet: Fleet,
        path: Path,
        *,
        epoch_ns: int | None = None,
        interval_s: float = 1.0,
    ) -> None:
        self._servers: Iterable[Server] = fleet.servers.values()
        self._path = path
        self._interval_s = interval_s
        self._file: IO[bytes] | None = None
        self._task: asyncio.Task[None] | None = None
        self.epoch_ns = epoch_ns

    async def __aenter__(self) -> Self:
        if self.epoch_ns is None:
            self.epoch_ns = time.monotonic_ns()
        file = self._path.open("ab", buffering=0)
        self._file = file
        self._task = asyncio.create_task(self._run(file))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task is None or self._file is None:
            return
        with self._file as file:
            self._task.cancel()
            # Not awaited itself: a cancellation of ours would be taken for the task's own.
            await asyncio.wait({self._task})
            if not self._task.cancelled():
                self._task.result()  # raises what kept it from writing
            if exc_type is None:  # the counters at the end belong to the last interval
                async with new_session() as session:
                    await self._all(session, file)

    async def _run(self, file: IO[bytes]) -> None:
        async with new_session() as session:
            due_s = time.monotonic()
            while True:
                await self._all(session, file)
                due_s = max(due_s + self._interval_s, time.monotonic())
                await asyncio.sleep(due_s - time.monotonic())

    async def _all(self, session: aiohttp.ClientSession, file: IO[bytes]) -> None:
        await asyncio.gather(*(self._one(session, server, file) for server in self._servers))

    async def _one(self, session: aiohttp.ClientSession, server: Server, file: IO[bytes]) -> None:
        if server.launcher.metrics_path is None:
            return
        metrics = await fetch_metrics(session, server) or ServerMetrics()
        t_ns = time.monotonic_ns() - (self.epoch_ns or 0)
        line = {"t_ns": t_ns, "server": server.name, **metrics.as_dict()}
        file.write(orjson.dumps(line) + b"\n")
