"""Requests to the real engine without HTTP: the same answers, and nothing left of who gave up."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from vllm_bench import VllmBench

from fairshare.load.ahead import Prepared, RequestQueue
from fairshare.load.exchange import perform
from fairshare.load.lane import Lane
from fairshare.load.target import Target
from fairshare.load.transport import Transport
from fairshare.load.transports import transport_to
from fairshare.records import ErrorKind, Phase, RequestRecord
from fairshare.serving.exposition import fetch_metrics
from fairshare.serving.plugins import socket_env
from fairshare.serving.probes import new_session
from fairshare.serving.server import Server
from fairshare.spec.scenario import Api
from fairshare.spec.workload import Sampling
from fairshare.workload.requests import PlannedRequest
from tests.workplace import Workplace

pytestmark = [pytest.mark.vllm_cpu, pytest.mark.timeout(300)]

SCENARIO = """\
name: pair
timing: {warmup_s: 1, window_s: 4, drain_s: 20}
tenants:
  - name: chat
    prompts: {kind: synthetic, tokens: {kind: uniform, min: 8, max: 32}}
    output: {kind: uniform, min: 8, max: 16}
  - name: batch
    stream: false
    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 64}}
    output: {kind: fixed, tokens: 16}
"""


@asynccontextmanager
async def _lane(target: Target) -> AsyncIterator[Lane]:
    transport: Transport = transport_to(target.base_url)
    queue = RequestQueue(target, iter(()), ahead=1, on_error=lambda error: None)
    try:
        yield Lane(target, transport, target.headers(), queue)
    finally:
        await transport.close()


async def _ask(lane: Lane, prompt: list[int], max_tokens: int) -> RequestRecord:
    record = RequestRecord("1", "plain", "a", Phase.MEASURE, 0)
    planned = PlannedRequest("1", "plain", None, prompt, None, len(prompt), max_tokens)
    body = lane.target.body(planned)
    await perform(lane, Prepared("1", None, body, max_tokens), record, 0)
    return record


@pytest.mark.asyncio(loop_scope="module")
async def test_an_engine_answers_as_its_server_does(bench: VllmBench) -> None:
    """Counts and finish are those of HTTP, errors are told, and who cancels is forgotten."""
    core = min(os.sched_getaffinity(0))
    async with bench.fleet(env=socket_env(), cpu_set=(core,)) as fleet:
        server = fleet.server_of("plain")
        http = Target(
            "plain", "a", server.base_url, server.model_for("plain"), Api.COMPLETIONS, True,
            server.api_key, True, True, Sampling(), 60, 60,
        )  # fmt: skip
        direct = replace(http, base_url=f"unix:{server.engine_socket}", api_key=None)
        prompt = [65 + i % 26 for i in range(100)]
        async with _lane(http) as over_http, _lane(direct) as in_process:
            one, other = await _ask(over_http, prompt, 20), await _ask(in_process, prompt, 20)
            assert one.error is other.error is None
            for name in ("prompt_tokens", "output_tokens", "finish_reason"):
                assert getattr(one, name) == getattr(other, name)
            assert sum(other.chunk_tokens) == other.output_tokens == 20
            assert (one.cached_tokens, other.cached_tokens) == (0, 96)  # whole blocks of 32
            times = [other.sent_ns, other.first_token_ns, *other.chunk_ns, other.end_ns]
            assert times == sorted(times)
            refused = await _ask(in_process, [65] * 5000, 4)
            assert refused.error is ErrorKind.SERVER_ERROR
            assert "4096" in (refused.error_text or "")
            asking = asyncio.create_task(_ask(in_process, prompt, 3000))
            async with asyncio.timeout(30):
                while not await _running(server):  # noqa: ASYNC110  (metrics cannot be awaited)
                    await asyncio.sleep(0.1)
            asking.cancel()
            assert (await asking).error is ErrorKind.UNFINISHED
            await fleet.wait_idle(10)  # it was aborted: 3000 tokens take longer


async def _running(server: Server) -> float:
    async with new_session() as session:
        metrics = await fetch_metrics(session, server)
    assert metrics is not None
    return metrics.running or 0


def test_a_run_without_http(workplace: Workplace, vllm_python: str) -> None:
    """Records are complete and the engine's own, over two load processes, and labelled as such."""
    done = workplace.run(
        "run", workplace.write("pair.yaml", SCENARIO), "--mode", "logical", "--device", "cpu",
        "--model", "tiny", "--transport", "in-process", "--load-processes", "2",
        "--concurrency", "2", "--python", vllm_python, "--output-dir", "out", timeout_s=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    (cell,) = workplace.cells("out").values()
    assert cell.result.label == "logical-in-process"
    assert any("no HTTP" in note for note in cell.result.notes)
    records = list(cell.records())
    assert {record.tenant for record in records} == {"chat", "batch"}
    for record in records:
        assert record.ok, record.error_text
        assert record.status is record.headers_ns is None
        times = [record.sent_ns, record.first_token_ns, *record.chunk_ns, record.end_ns]
        assert times == sorted(times)
        assert sum(record.chunk_tokens) == record.output_tokens
        if record.tenant == "batch":
            assert (record.prompt_tokens, record.output_tokens) == (64, 16)
            assert record.chunk_tokens == [16]
    assert workplace.leftovers() == []
