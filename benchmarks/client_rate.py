"""How fast and how exact the load generator is, on one core, against a server that only replays.

Usage: ``python -m benchmarks.client_rate [--concurrency 64] [--ttft-ms 50 --itl-ms 10]``

Without delays it reports chunks per second and CPU time per 1,000 chunks; with delays also how
much later than the server's own schedule the client saw the first token. The server runs on the
first core and the client on the last; on one core the figures mean little.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import orjson

from fairshare.load.driver import TenantLoad, drive
from fairshare.load.target import Target
from fairshare.records import Phase, RequestRecord
from fairshare.spec.lengths import FixedLength
from fairshare.spec.scenario import Api, Tenant, Timing
from fairshare.spec.workload import Sampling, SyntheticPrompts
from fairshare.workload.requests import PlannedRequest

TOKENS = 64
PROMPT = list(range(32))


def framed(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def chunks() -> list[bytes]:
    """An answer as vLLM sends it, one HTTP chunk an event."""
    found = []
    for made in range(1, TOKENS + 1):
        choice = {
            "index": 0,
            "text": " a",
            "logprobs": None,
            "finish_reason": "length" if made == TOKENS else None,
            "stop_reason": None,
            "token_ids": [300],
        }
        usage = {
            "prompt_tokens": 32,
            "total_tokens": 32 + made,
            "completion_tokens": made,
        }
        body = {
            "id": "cmpl-0123456789abcdef",
            "object": "text_completion",
            "created": 0,
            "model": "m",
            "choices": [choice],
            "usage": usage,
        }
        found.append(framed(b"data: " + orjson.dumps(body) + b"\n\n"))
    end = framed(b"data: " + orjson.dumps({"choices": [], "usage": usage}) + b"\n\n")
    return [*found, end + framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"]


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Replayer(asyncio.Protocol):
    """Answers each request with the same chunks, at the times told."""

    def __init__(self, answer: list[bytes], ttft_s: float, itl_s: float) -> None:
        self._answer = answer
        self._ttft_s = ttft_s
        self._itl_s = itl_s
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer once a whole request is here."""
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(body) < length:
            return
        self._received = b""
        self._transport.write(HEAD)
        now = asyncio.get_running_loop().time()
        self._write(0, now + self._ttft_s)

    def _write(self, index: int, due_s: float) -> None:
        loop = asyncio.get_running_loop()
        while index < len(self._answer):
            if due_s > loop.time():
                loop.call_at(due_s, self._write, index, due_s)
                return
            self._transport.write(self._answer[index])
            index += 1
            due_s += self._itl_s


def serve(pipe: Connection, core: int, ttft_s: float, itl_s: float) -> None:
    os.sched_setaffinity(0, {core})

    async def forever() -> None:
        answer = chunks()
        server = await asyncio.get_running_loop().create_server(
            lambda: Replayer(answer, ttft_s, itl_s), "127.0.0.1", 0, backlog=4096
        )
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(forever())


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
        server="replayer",
        base_url=f"http://127.0.0.1:{port}",
        model="m",
        api=Api.COMPLETIONS,
        stream=True,
        api_key=None,
        token_id_prompts=True,
        continuous_usage=True,
        sampling=Sampling(),
        timeout_s=60,
        stall_s=60,
    )
    return TenantLoad(tenant, target, concurrency, plan())


def report(records: list[RequestRecord], window_s: float, cpu_s: float, ttft_s: float) -> None:
    good = [record for record in records if record.ok and record.phase is Phase.MEASURE]
    received = sum(len(record.chunk_ns) for record in records if record.ok)
    print(f"requests   {len(good)} ({len(records) - len(good)} others)")
    print(f"rate       {sum(len(r.chunk_ns) for r in good) / window_s:,.0f} chunks/s")
    print(f"cpu        {cpu_s * 1e6 / received:.1f} ms per 1,000 chunks")
    late = sorted(
        (record.first_token_ns - record.sent_ns) / 1e6 - ttft_s * 1e3
        for record in good
        if record.first_token_ns is not None and record.sent_ns is not None
    )
    p99 = late[int(0.99 * (len(late) - 1))]
    print(f"TTFT error {statistics.median(late):.2f} ms median, {p99:.2f} ms P99")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--ttft-ms", type=float, default=0.0)
    parser.add_argument("--itl-ms", type=float, default=0.0)
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    ours, theirs = multiprocessing.Pipe()
    ttft_s = options.ttft_ms / 1e3
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs, cores[0], ttft_s, options.itl_ms / 1e3), daemon=True
    )
    server.start()
    try:
        port = ours.recv()
        os.sched_setaffinity(0, {cores[-1]})
        records: list[RequestRecord] = []
        timing = Timing(warmup_s=1.0, window_s=options.seconds, drain_s=10.0)

        async def run() -> None:
            outcome = await drive(
                [load(port, options.concurrency)], timing, records.append, stop=asyncio.Event()
            )
            print(outcome.client)

        started_s = time.process_time()
        asyncio.run(run())
        report(records, options.seconds, time.process_time() - started_s, ttft_s)
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
