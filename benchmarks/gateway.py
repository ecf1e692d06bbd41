"""What the gateway adds to a stream, and how many chunks it passes, beside LiteLLM's proxy.

Usage: ``python -m benchmarks.gateway [--rounds 3] [--litellm VENV/bin/litellm] [--seconds 10]``

A mock server and the client share the first core; the proxy has the last one. Alone: one stream
after another (TTFT 50 ms, ITL 10 ms, 64 tokens). Paced: Poisson arrivals of such with about 64 in
flight. Unpaced: 64 streams as fast as they go. Rounds are interleaved; what a proxy adds is its
median less the direct one of the same round, and of all rounds the median counts. Chunks per CPU
second are the proxy's (in the row ``direct``: the client's). On a machine that has other work
``chrt -f 30 python -m benchmarks.gateway`` (as root) gives all of it precedence.

``fairshare`` is our gateway with VTC, ``hiding`` the same for a client that asked for no usage, so
that each chunk is changed; ``bare`` hands bytes on and looks at none
(:mod:`benchmarks.bare_relay`). For LiteLLM: ``python -m venv V && V/bin/pip install
'litellm[proxy]'``, then ``--litellm V/bin/litellm``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil

from benchmarks.load_generator import Case, compiled, serving
from fairshare.gateway.settings import GatewaySettings
from fairshare.processes.ports import free_port

TOKENS = 64
PACED = Case(64, 50, 10)
UNPACED = Case(64)
IN_FLIGHT = 64
RATE_PER_S = IN_FLIGHT / (0.05 + (TOKENS - 1) * 0.01)
CLIENT_CORE, PROXY_CORE = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
READY_S = 120


class Stream(asyncio.Protocol):
    """One connection with one request; the time of each chunk that carries a token."""

    def __init__(self, request: bytes, done: asyncio.Future[None]) -> None:
        self.request, self.done = request, done
        self.sent_ns = 0
        self.at_ns: list[int] = []
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection for its request."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def go(self) -> None:
        """Send."""
        self.at_ns, self.tail = [], b""
        self.sent_ns = time.monotonic_ns()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Stamp; a chunk with a token has a choice."""
        now_ns = time.monotonic_ns()
        tokens = data.count(b'"choices":[{')
        self.at_ns += [now_ns] * tokens
        if b"[DONE]" in self.tail + data and not self.done.done():
            self.done.set_result(None)
        self.tail = data[-6:]

    def connection_lost(self, exc: Exception | None) -> None:
        """Too early."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("closed"))


def message(hiding: bool) -> bytes:
    body: dict[str, Any] = {
        "model": "mock",
        "prompt": "hello",
        "max_tokens": TOKENS,
        "stream": True,
    }
    if not hiding:
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    raw = orjson.dumps(body)
    head = "POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw


async def paced(port: int, seconds: float, hiding: bool, pid: int) -> dict[str, float]:
    """Poisson arrivals over connections that are open already, as a pool's would be."""
    del pid
    loop = asyncio.get_running_loop()
    idle: list[Stream] = []
    found: list[tuple[float, list[float]]] = []
    flights: set[asyncio.Task[None]] = set()
    rng = random.Random(7)

    async def one(keep: bool) -> None:
        stream = idle.pop() if idle else None
        if stream is None or stream.transport.is_closing():
            request, future = message(hiding), loop.create_future()
            _, stream = await loop.create_connection(
                lambda: Stream(request, future), "127.0.0.1", port
            )
        else:
            stream.done = loop.create_future()
        stream.go()
        await stream.done
        if keep:
            ttft_ms = (stream.at_ns[0] - stream.sent_ns) / 1e6
            gaps = [(b - a) / 1e6 for a, b in itertools.pairwise(stream.at_ns)]
            found.append((ttft_ms, gaps))
        idle.append(stream)

    warm_s, due_s = 2.0, loop.time()
    start_s = due_s
    while due_s < start_s + warm_s + seconds:
        due_s += rng.expovariate(RATE_PER_S)
        await asyncio.sleep(due_s - loop.time())
        task = asyncio.create_task(one(due_s > start_s + warm_s))
        flights.add(task)
        task.add_done_callback(flights.discard)
    await asyncio.gather(*flights)
    return {
        "ttft_ms": statistics.median(ttft for ttft, _ in found),
        "itl_ms": statistics.median(gap for _, gaps in found for gap in gaps),
        "requests": len(found),
    }


def cpu_s(pid: int) -> float:
    """CPU time that a process and its children have used."""
    first = psutil.Process(pid)
    times = [each.cpu_times() for each in (first, *first.children(recursive=True))]
    return sum(each.user + each.system for each in times)


async def alone(port: int, seconds: float, hiding: bool, pid: int) -> dict[str, float]:
    """One stream at a time: what each way costs where nobody else is."""
    del pid
    loop = asyncio.get_running_loop()
    request, future = message(hiding), loop.create_future()
    _, stream = await loop.create_connection(lambda: Stream(request, future), "127.0.0.1", port)
    found: list[float] = []
    end_s = loop.time() + seconds
    while loop.time() < end_s:
        stream.done = loop.create_future()
        stream.go()
        await stream.done
        found.append((stream.at_ns[0] - stream.sent_ns) / 1e6)
    return {"alone_ms": statistics.median(found)}


async def unpaced(port: int, seconds: float, hiding: bool, pid: int) -> dict[str, float]:
    """As many chunks as come, and what CPU time each takes the proxy (or the server itself)."""
    loop = asyncio.get_running_loop()
    chunks = 0
    end_s = loop.time() + 1.0 + seconds
    used_s = 0.0

    def begin() -> None:
        nonlocal used_s
        used_s = cpu_s(pid)

    loop.call_at(end_s - seconds, begin)

    async def one() -> None:
        nonlocal chunks
        request, future = message(hiding), loop.create_future()
        _, stream = await loop.create_connection(lambda: Stream(request, future), "127.0.0.1", port)
        while loop.time() < end_s:
            stream.done = loop.create_future()
            stream.go()
            await stream.done
            if loop.time() > end_s - seconds:
                chunks += len(stream.at_ns)

    await asyncio.gather(*(one() for _ in range(IN_FLIGHT)))
    return {"chunks_per_s": chunks / seconds, "per_cpu_s": chunks / (cpu_s(pid) - used_s)}


@contextlib.contextmanager
def process(command: list[str], url: str, folder: Path) -> Iterator[int]:
    """A proxy on its core, once it is ready; its process id."""
    log = (folder / "proxy.log").open("wb")
    child = subprocess.Popen(
        ["taskset", "-c", str(PROXY_CORE), *command], stdout=log, stderr=subprocess.STDOUT
    )
    try:
        for _ in range(READY_S * 10):
            with contextlib.suppress(OSError):
                with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own proxy
                    pass
                break
            assert child.poll() is None, (folder / "proxy.log").read_text()[-2000:]
            time.sleep(0.1)
        yield child.pid
    finally:
        child.terminate()
        child.wait()


@contextlib.contextmanager
def behind(proxy: str, upstream: int, options: argparse.Namespace) -> Iterator[tuple[int, int]]:
    """The port to ask for a way to the server, and whose CPU time counts."""
    if proxy == "direct":
        yield upstream, os.getpid()
        return
    url, port = f"http://127.0.0.1:{upstream}", free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "config"
        if proxy == "litellm":
            served = {
                "model": "text-completion-openai/mock",
                "api_base": url + "/v1",
                "api_key": "none",
            }
            models = [{"model_name": "mock", "litellm_params": served}]
            unguarded = {"dangerously_permit_weak_or_unset_master_key": True}
            config.write_text(json.dumps({"model_list": models, "general_settings": unguarded}))
            command = [options.litellm, "--config", str(config), "--port", str(port)]
            ready = f"http://127.0.0.1:{port}/health/liveliness"
        elif proxy == "bare":
            command = [sys.executable, "-m", "benchmarks.bare_relay", str(port), str(upstream)]
            ready = f"http://127.0.0.1:{port}/"
        else:
            settings = GatewaySettings(
                upstream=url, port=port, policy="vtc", window=256, continuous_usage=True
            )
            config.write_text(settings.model_dump_json())
            command = [sys.executable, "-m", "fairshare.gateway", "--settings", str(config)]
            ready = f"http://127.0.0.1:{port}/gateway/health"
        with process(command, ready, folder) as pid:
            yield port, pid


def measure(program: Path, proxy: str, options: argparse.Namespace) -> dict[str, float]:
    hiding = proxy == "hiding"
    found: dict[str, float] = {}
    for case, run in ((PACED, alone), (PACED, paced), (UNPACED, unpaced)):
        with serving(program, case) as upstream, behind(proxy, upstream, options) as (port, pid):
            found |= asyncio.run(run(port, options.seconds, hiding, pid))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--litellm", help="its program, in a virtual environment of its own")
    options = parser.parse_args()
    proxies = ["direct", "bare", "fairshare", "hiding"]
    if options.litellm:
        proxies.append("litellm")
    else:
        print("litellm is left out: --litellm says where it is")
    os.sched_setaffinity(0, {CLIENT_CORE})
    rows: dict[str, list[dict[str, float]]] = {proxy: [] for proxy in proxies}
    with tempfile.TemporaryDirectory() as name:
        program = compiled(Path(name))
        for _ in range(options.rounds):
            for proxy in proxies:
                rows[proxy].append(measure(program, proxy, options))
    print(
        "| way | added alone | median TTFT added | median ITL added | chunks/s | per CPU second |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for proxy, found in rows.items():
        added = [
            statistics.median(
                row[metric] - direct[metric]
                for row, direct in zip(found, rows["direct"], strict=True)
            )
            for metric in ("alone_ms", "ttft_ms", "itl_ms")
        ]
        rate, per_cpu = (max(row[name] for row in found) for name in ("chunks_per_s", "per_cpu_s"))
        cells = [f"{each:.2f} ms" for each in added] + [f"{each:,.0f}" for each in (rate, per_cpu)]
        print(f"| {proxy} | {' | '.join(cells)} |")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
