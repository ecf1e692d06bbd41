"""What a real vLLM server, started by a fleet, answers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import pytest_asyncio
from vllm_bench import VllmBench

from fairshare.serving.exposition import fetch_metrics
from fairshare.serving.fleet import Fleet
from fairshare.serving.probes import new_session
from fairshare.serving.server import Server

pytestmark = [
    pytest.mark.vllm_cpu,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]
VLLM_EXTRAS = {
    "ignore_eos": True,
    "return_token_ids": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(bench: VllmBench, adapter: Path) -> AsyncIterator[Fleet]:
    """A server with the tiny model and an adapter for tenant ``a``, on our first core."""
    core = min(os.sched_getaffinity(0))
    async with bench.fleet(adapters={"a": str(adapter)}, cpu_set=(core,)) as fleet:
        yield fleet


async def _post(
    server: Server, path: str, body: Mapping[str, Any], key: str | None = None
) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {server.api_key if key is None else key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(server.base_url + path, json=body, headers=headers) as response,
    ):
        return response.status, await response.read()


async def _complete(server: Server, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    status, answer = await _post(server, path, body)
    assert status == 200, answer
    parsed: dict[str, Any] = orjson.loads(answer)
    return parsed


async def test_streams_of_token_ids_are_exact(running: Fleet) -> None:
    """A prompt of n token ids counts n, and exactly max_tokens come back, counted in the stream."""
    server = running.server_of("plain")
    prompt = [65 + i % 26 for i in range(100)]
    body = {"model": server.model_for("plain"), "prompt": prompt, "max_tokens": 20, "stream": True}
    status, stream = await _post(server, "/v1/completions", body | VLLM_EXTRAS)
    lines = [line[6:] for line in stream.splitlines() if line.startswith(b"data: ")]
    assert status == 200
    assert lines.pop() == b"[DONE]"
    chunks = [orjson.loads(line) for line in lines]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert sum(len(choice["token_ids"] or ()) for choice in choices) == 20
    assert choices[-1]["finish_reason"] == "length"
    usage = chunks[-1]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (100, 20)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0


async def test_text_of_n_characters_is_n_tokens(running: Fleet) -> None:
    """The made tokenizer is understood by the engine: text prompts are exact too."""
    server = running.server_of("plain")
    body = {"model": "tiny", "prompt": "exactly thirty-two characters ..", "max_tokens": 3}
    answer = await _complete(server, "/v1/completions", body | {"ignore_eos": True})
    assert answer["usage"]["prompt_tokens"] == 32
    assert answer["usage"]["completion_tokens"] == 3


async def test_chats_are_answered(running: Fleet) -> None:
    """The made chat template works: a conversation gets an answer of printable text."""
    server = running.server_of("plain")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    body = {"model": "tiny", "messages": messages, "max_tokens": 8, "temperature": 0}
    answer = await _complete(server, "/v1/chat/completions", body)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"].strip().isprintable()


async def test_a_tenants_adapter_answers_under_its_name(running: Fleet) -> None:
    """A tenant with an adapter shares the server, but is answered by its own weights."""
    server = running.server_of("a")
    assert server is running.server_of("plain")
    body = {"prompt": [65, 66, 67], "max_tokens": 8, "temperature": 0, "ignore_eos": True}
    texts = [
        (await _complete(server, "/v1/completions", body | {"model": model}))["choices"][0]["text"]
        for model in (server.model_for("a"), server.model_for("plain"))
    ]
    assert texts[0] != texts[1]


async def test_strangers_are_turned_away(running: Fleet) -> None:
    """The run's key guards the server: another user's requests do not disturb a measurement."""
    server = running.server_of("plain")
    body = {"model": "tiny", "prompt": [1], "max_tokens": 1}
    assert (await _post(server, "/v1/completions", body, key="wrong"))[0] == 401


async def test_its_metrics_have_every_figure(running: Fleet) -> None:
    """VLLM's metrics page has all the figures that are recorded, under the names we know."""
    server = running.server_of("plain")
    await running.wait_idle(10)
    async with new_session() as session:
        metrics = await fetch_metrics(session, server)
    assert metrics is not None
    assert None not in metrics.as_dict().values()
    assert metrics.busy == 0


async def test_the_whole_server_is_on_its_core(running: Fleet) -> None:
    """Every process of the server, the engine's too, runs on the slot's cores only."""
    pids = running.server_of("a").pids()
    assert len(pids) >= 2
    core = min(os.sched_getaffinity(0))
    assert [os.sched_getaffinity(pid) for pid in pids] == [{core}] * len(pids)
