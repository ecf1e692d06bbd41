"""One client against a running mock server, pinned to a core; prints one JSON line of figures.

Run by ``benchmarks.load_generator``, a process for each measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import orjson

from fairshare.load.driver import drive
from fairshare.load.load import TenantLoad
from fairshare.load.target import Target
from fairshare.records import Phase, RequestRecord, TransportKind
from fairshare.spec.lengths import FixedLength
from fairshare.spec.scenario import Api, Tenant, Timing
from fairshare.spec.workload import Sampling, SyntheticPrompts
from fairshare.workload.requests import PlannedRequest

TOKENS = 64
PROMPT = list(range(32))
WARMUP_S = 1.0


def summary(
    ttft_ms: list[float], gaps_ms: list[float], chunks: int, seconds: float, cpu_s: float
) -> dict[str, Any]:
    """The figures of one measurement; CPU in ms per 1,000 chunks."""
    return {
        "chunks_per_s": chunks / seconds,
        "cpu_ms_per_1k": cpu_s * 1e6 / chunks,
        "ttft_p50_ms": statistics.median(ttft_ms),
        "ttft_p99_ms": sorted(ttft_ms)[int(0.99 * len(ttft_ms))],
        "itl_p50_ms": statistics.median(gaps_ms),
        "itl_p99_ms": sorted(gaps_ms)[int(0.99 * len(gaps_ms))],
    }


# fairshare's own client.


def plan() -> Iterator[PlannedRequest]:
    for number in itertools.count():
        yield PlannedRequest(str(number), "a", None, PROMPT, None, len(PROMPT), TOKENS)


def load(port: int, concurrency: int) -> TenantLoad:
    tenant = Tenant(
        name="a",
        prompts=SyntheticPrompts(tokens=FixedLength(tokens=32)),
        output=FixedLength(tokens=TOKENS),
    )
    target = Target(
        tenant="a",
        server="mock",
        base_url=f"http://127.0.0.1:{port}",
        model="mock",
        api=Api.COMPLETIONS,
        stream=True,
        api_key=None,
        token_id_prompts=True,
        continuous_usage=True,
        sampling=Sampling(),
        timeout_s=60,
        stall_s=60,
    )
    return TenantLoad(tenant, target, concurrency, plan)


def run_fairshare(port: int, concurrency: int, seconds: float, kind: TransportKind) -> Any:
    records: list[RequestRecord] = []
    timing = Timing(warmup_s=WARMUP_S, window_s=seconds, drain_s=10.0)
    used_s: list[float] = []

    def on_window(_phase: str) -> None:
        used_s.append(time.process_time())

    report = asyncio.run(
        drive(
            [load(port, concurrency)],
            timing,
            records.append,
            stop=asyncio.Event(),
            on_window=on_window,
            transport=kind,
        )
    )
    assert not [r for r in records if r.error], records[-1].error_text
    start, end = report.window_ns
    good = [record for record in records if record.phase is Phase.MEASURE]
    chunks = sum(start <= at < end for record in records for at in record.chunk_ns)
    ttft = [(r.first_token_ns - r.sent_ns) / 1e6 for r in good if r.first_token_ns and r.sent_ns]
    gaps = [(b - a) / 1e6 for r in good for a, b in itertools.pairwise(r.chunk_ns)]
    cpu_s = used_s[2] - used_s[1]  # from the begin of the window to that of the drain
    return summary(ttft, gaps, chunks, (end - start) / 1e9, cpu_s)


# The bare reference: as little as a client can do and still parse every chunk.


class Bare(asyncio.Protocol):
    """Sends again as soon as an answer is complete; keeps only the times."""

    ttft_ms: list[float] = []  # noqa: RUF012 - of all connections
    gaps_ms: list[float] = []  # noqa: RUF012
    request = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._rest, self._last_ns = b"", 0
        self._sent_ns = time.monotonic_ns()
        self._transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Stamp and parse what came."""
        now_ns = time.monotonic_ns()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                self._send()
            elif orjson.loads(line[6:])["choices"]:
                if self._last_ns:
                    self.gaps_ms.append((now_ns - self._last_ns) / 1e6)
                else:
                    self.ttft_ms.append((now_ns - self._sent_ns) / 1e6)
                self._last_ns = now_ns


def run_bare(port: int, concurrency: int, seconds: float) -> Any:
    body = orjson.dumps({"model": "m", "prompt": PROMPT, "max_tokens": TOKENS, "stream": True})
    head = b"POST /v1/completions HTTP/1.1\r\nHost: mock\r\nContent-Length: %d\r\n\r\n"
    Bare.request = head % len(body) + body

    async def run() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        for _ in range(concurrency):
            await loop.create_connection(Bare, "127.0.0.1", port)
        await asyncio.sleep(WARMUP_S)
        Bare.ttft_ms.clear()
        Bare.gaps_ms.clear()
        cpu_s, start_s = time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        return time.process_time() - cpu_s, time.monotonic() - start_s

    cpu_s, elapsed_s = asyncio.run(run())
    chunks = len(Bare.ttft_ms) + len(Bare.gaps_ms)
    return summary(Bare.ttft_ms, Bare.gaps_ms, chunks, elapsed_s, cpu_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=["bare", TransportKind.STREAM, TransportKind.AIOHTTP])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    where = (options.port, options.concurrency, options.seconds)
    found = (
        run_bare(*where)
        if options.client == "bare"
        else run_fairshare(*where, TransportKind(options.client))
    )
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
