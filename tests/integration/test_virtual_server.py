"""The virtual server end to end: a real process, spoken to over HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from virtual_servers import Running, body, events, gauges, refused, reports, server

from fairshare.virtual.driver import install

KEY = "secret-key"


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """One server for the tests that only ask."""
    with server("--served-model-name", "m", env={"VLLM_API_KEY": KEY}) as started:
        yield started


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """A client with the right key."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(headers=headers) as made:
        yield made


async def test_stream_carries_one_token_a_chunk_and_exact_counts(
    running: Running, session: aiohttp.ClientSession
) -> None:
    """Every token has a chunk with its id and the usage so far; usage and [DONE] end the stream."""
    async with session.post(f"{running.url}/v1/completions", json=body()) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        *chunks, usage, done = await events(response)
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == list(range(1, 9))
    assert all(len(chunk["choices"][0]["token_ids"]) == 1 for chunk in chunks)
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * 7 + ["length"]
    assert usage["usage"]["total_tokens"] == 11
    assert usage["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert done == "[DONE]"


async def test_streamed_and_whole_answers_agree(
    running: Running, session: aiohttp.ClientSession
) -> None:
    """The same request gives the same tokens either way, and so does chat."""
    url = f"{running.url}/v1/completions"
    async with session.post(url, json=body()) as response:
        streamed = [e["choices"][0]["text"] for e in (await events(response))[:-2]]
    async with session.post(url, json=body(stream=False)) as response:
        whole = await response.json()
    assert whole["choices"][0]["text"] == "".join(streamed)
    assert whole["usage"]["completion_tokens"] == 8
    message = {"role": "user", "content": "t1 t2 t3"}
    chat = {"messages": [message], "max_tokens": 8, "ignore_eos": True}
    async with session.post(f"{running.url}/v1/chat/completions", json=chat) as response:
        answer = await response.json()
    assert answer["choices"][0]["message"]["content"] == whole["choices"][0]["text"]


async def test_wrong_key_is_refused_where_vllm_refuses_it(running: Running) -> None:
    """Without the key /v1 answers 401; health and metrics need none."""
    async with aiohttp.ClientSession() as anonymous:
        async with anonymous.post(f"{running.url}/v1/completions", json=body()) as response:
            assert response.status == 401
            assert await response.json() == {"error": "Unauthorized"}
        wrong = {"Authorization": "Bearer wrong"}
        async with anonymous.get(f"{running.url}/v1/models", headers=wrong) as response:
            assert response.status == 401
        async with anonymous.get(f"{running.url}/health") as response:
            assert response.status == 200


async def test_errors_have_vllms_status_and_body(
    running: Running, session: aiohttp.ClientSession
) -> None:
    """Too long, unknown model, and no JSON: a status and an error object, also when streaming."""
    url = f"{running.url}/v1/completions"
    cases = [({"prompt": [1] * 2048}, 400), ({"model": "x"}, 404), ({"max_tokens": 0}, 400)]
    for fields, status in cases:
        async with session.post(url, json=body(**fields)) as response:
            assert response.status == status
            assert (await response.json())["error"]["code"] == status
    async with session.post(url, data=b"{") as response:
        assert response.status == 400
    async with session.get(f"{running.url}/v1/models") as response:
        listed = await response.json()
    assert [(m["id"], m["max_model_len"]) for m in listed["data"]] == [("m", 2048)]


async def test_metrics_count_what_was_served() -> None:
    """Counters rise by the tokens of a request, and an idle server shows nothing running."""
    with server() as fresh:
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{fresh.url}/v1/completions", json=body()) as response:
                await events(response)
            seen = await gauges(session, fresh.url)
    assert seen["vllm:generation_tokens_total"] == 8
    assert seen["vllm:prompt_tokens_total"] == 3
    assert seen["vllm:num_requests_running"] == seen["vllm:num_requests_waiting"] == 0
    assert seen["vllm:kv_cache_usage_perc"] == 0
    assert seen["vllm:num_preemptions_total"] == 0
    assert seen["vllm:cache_config_info"] == 1
    assert (
        seen["fairshare_virtual_e2e_seconds_total"] > seen["fairshare_virtual_ttft_seconds_total"]
    )
    assert seen["fairshare_virtual_dilation_worst"] >= seen["fairshare_virtual_dilation"] >= 0


async def test_what_was_served_is_found_in_the_prefix_cache(
    running: Running, session: aiohttp.ClientSession
) -> None:
    """Full blocks of a known prompt are counted as cached, in both kinds of answer and metrics."""
    url = f"{running.url}/v1/completions"
    prompt = list(range(500, 540))
    before = (await gauges(session, running.url))["vllm:prompt_tokens_cached_total"]
    async with session.post(url, json=body(prompt=prompt)) as response:
        first = (await events(response))[-2]
    async with session.post(url, json=body(prompt=[*prompt, 7])) as response:
        chunk, *_, last, _ = await events(response)
    async with session.post(url, json=body(prompt=prompt[:20], stream=False)) as response:
        whole = await response.json()
    found = [
        e["usage"]["prompt_tokens_details"]["cached_tokens"] for e in (first, chunk, last, whole)
    ]
    assert found == [0, 32, 32, 16]
    after = (await gauges(session, running.url))["vllm:prompt_tokens_cached_total"]
    assert after - before == 48


async def test_a_client_that_leaves_ends_its_request(
    running: Running, session: aiohttp.ClientSession
) -> None:
    """After a disconnect the engine stops working for nobody and frees the KV cache."""
    long = body(max_tokens=2000)
    response = await session.post(f"{running.url}/v1/completions", json=long)
    await response.content.readline()
    assert (await gauges(session, running.url))["vllm:num_requests_running"] == 1
    response.close()
    async with asyncio.timeout(5):
        while (await gauges(session, running.url))["vllm:num_requests_running"]:
            continue
    assert (await gauges(session, running.url))["vllm:kv_cache_usage_perc"] == 0


async def test_sigterm_ends_a_busy_server_cleanly(tmp_path: Path) -> None:
    """In the middle of a stream it exits 0 within seconds and takes its report with it."""
    env = install(tmp_path, "a100-40")
    with server(env=env) as busy:
        assert [r["pid"] for r in reports(tmp_path)] == [busy.process.pid]
        async with aiohttp.ClientSession() as session:
            request = session.post(f"{busy.url}/v1/completions", json=body(max_tokens=2000))
            async with request as response:
                await response.content.readline()
                loop = asyncio.get_running_loop()
                started = loop.time()
                assert await asyncio.to_thread(busy.stop) == 0
                assert loop.time() - started < 5
    assert reports(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "knob", "message"),
    [
        (("--model", "gpt-5"), "", "ValueError: the virtual GPU has no model named 'gpt-5'"),
        (("--max-model-len", "99999"), "", "greater than the derived max_model_len (40960)"),
        (("--kv-cache-memory-bytes", "99999999999"), "", "CUDA out of memory"),
        (("--gpu", "nothing"), "", "there is no GPU named 'nothing'"),
        (("--host", "192.0.2.1"), "", "OSError: [Errno 99]"),
        ((), "server_dies_at_start", "simulated failure"),
        ((), "server_out_of_memory", "torch.OutOfMemoryError: CUDA out of memory"),
        ((), "server_slow=often", "server_slow=often: not a positive number"),
    ],
    ids=["model", "length", "memory", "gpu", "host", "dies", "out of memory", "knob's value"],
)
def test_a_server_that_cannot_start_says_why(
    options: tuple[str, ...], knob: str, message: str
) -> None:
    """It exits 1 with one error line as vLLM would write it, and without a traceback."""
    status, log = refused(*options, env={"FAIRSHARE_VIRTUAL_FAIL": knob})
    assert status == 1
    assert message in log
    assert "Traceback" not in log
    assert log.startswith("ERROR")


def test_wrong_arguments_exit_with_usage() -> None:
    """An unknown option is a usage error, as with vLLM."""
    status, log = refused("--frobnicate")
    assert status == 2
    assert "unrecognized arguments: --frobnicate" in log


async def test_knob_kills_the_server_after_so_many_tokens() -> None:
    """A crash in the middle of a stream: the stream breaks off and the process is gone."""
    with server(env={"FAIRSHARE_VIRTUAL_FAIL": "server_dies_after=5"}) as doomed:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                async with session.post(f"{doomed.url}/v1/completions", json=body()) as response:
                    await events(response)
        assert await asyncio.to_thread(doomed.process.wait, 10) == 1


async def test_knob_breaks_the_engine_behind_a_server_that_still_answers() -> None:
    """As vLLM does: an error and [DONE] in a stream, then 500 and 503, then the exit code 0."""
    with server(env={"FAIRSHARE_VIRTUAL_FAIL": "server_out_of_memory_after=5"}) as doomed:
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{doomed.url}/v1/completions", json=body()) as response:
                assert response.status == 200
                *chunks, error, done = await events(response)
            assert [len(chunks), error["error"]["code"], done] == [5, 500, "[DONE]"]
            async with session.post(f"{doomed.url}/v1/completions", json=body()) as response:
                assert response.status == 500
                assert (await response.json())["error"]["type"] == "InternalServerError"
            async with session.get(f"{doomed.url}/health") as response:
                assert response.status == 503
        assert await asyncio.to_thread(doomed.process.wait, 10) == 0
        assert doomed.process.stderr is not None
        assert "CUDA out of memory" in doomed.process.stderr.read()


def test_knob_keeps_the_server_from_ever_being_ready() -> None:
    """It runs, listens nowhere, and still ends cleanly on SIGTERM."""
    with server(env={"FAIRSHARE_VIRTUAL_FAIL": "server_never_ready"}) as never:
        port = int(never.url.rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        assert never.stop() == 0
