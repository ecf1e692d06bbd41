"""A gateway in front of a fake server, over real sockets."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import orjson
import pytest

from fairshare.errors import PreflightError
from fairshare.gateway.identity import Keys
from fairshare.gateway.server import Gateway
from fairshare.gateway.settings import GatewaySettings
from fairshare.processes.ports import free_port
from fairshare.testing.behaviour import Behaviour, Kind
from fairshare.testing.fake_server import FakeServer

KEYS = Keys({"alice": "key-of-alice", "bob": "key-of-bob"}, trusted="key-of-the-edge")
PATH = "/v1/completions"


async def until(true: Callable[[], bool]) -> None:
    """Return once it is so."""
    async with asyncio.timeout(30):
        for _ in iter(true, True):
            await asyncio.sleep(0.01)


async def draining(session: aiohttp.ClientSession, url: str) -> None:
    """Return once the gateway says that it is about to stop."""
    async with asyncio.timeout(30):
        for _ in itertools.count():
            async with session.get(url + "/gateway/health") as answer:
                if answer.status == 503:
                    return
            await asyncio.sleep(0.01)


class Client:
    """Asks a gateway."""

    def __init__(self, session: aiohttp.ClientSession, gateway: Gateway) -> None:
        self.session = session
        self.gateway = gateway
        self.url = f"http://127.0.0.1:{gateway.port}"

    async def post(
        self, key: str = "key-of-alice", path: str = PATH, headers: Any = None, **body: Any
    ) -> tuple[int, bytes, Any]:
        """Status, body and headers of an answer."""
        asked = {"model": "fake", "prompt": [1, 2, 3], "max_tokens": 4, "stream": True} | body
        given = {"Authorization": f"Bearer {key}"} | (headers or {})
        async with self.session.post(self.url + path, json=asked, headers=given) as answer:
            return answer.status, await answer.read(), answer.headers

    async def when(self, what: str, count: int) -> None:
        """Return once so many are ``queued``, or ``outstanding``."""
        admission = self.gateway.admission
        values = {"queued": lambda: admission.waiting, "outstanding": lambda: admission.outstanding}
        await until(lambda: values[what]() == count)

    async def health(self) -> Any:
        """What the gateway says of itself."""
        async with self.session.get(self.url + "/gateway/health") as answer:
            return await answer.json()


@asynccontextmanager
async def gateway(
    server: FakeServer | None = None, *, upstream: str = "", **given: Any
) -> AsyncIterator[Client]:
    """A gateway in front of a server, and a client of it."""
    settings = GatewaySettings(upstream=server.base_url if server else upstream, **given)
    async with Gateway(settings, KEYS) as running, aiohttp.ClientSession() as session:
        yield Client(session, running)


async def test_a_client_gets_what_the_server_says_less_what_only_the_gateway_asked_for() -> None:
    """A stream through the gateway is byte for byte the one that the client asked for."""
    async with FakeServer() as server, aiohttp.ClientSession() as session:
        for options in (None, {"include_usage": True}):
            body: dict[str, Any] = {"stream_options": options} if options else {}
            asked = {"model": "fake", "prompt": [1, 2, 3], "max_tokens": 4, "stream": True} | body
            async with session.post(server.base_url + PATH, json=asked) as answer:
                direct = await answer.read()
            async with gateway(server) as client:
                status, through, _ = await client.post(**body)
            assert (status, through) == (200, direct)
            assert server.seen[-1].body["stream_options"]["continuous_usage_stats"] is True


async def test_each_protocol_is_charged_by_the_servers_own_count() -> None:
    """Streams and whole answers of OpenAI's and TGI's protocol end in the tenant's tokens."""
    async with FakeServer() as server, gateway(server) as client:
        await client.post()
        await client.post(stream=False)
        chat = {"messages": [{"role": "user", "content": "hello"}], "prompt": None}
        await client.post(path="/v1/chat/completions", **chat)
        await client.post(key="key-of-bob", path="/generate", inputs="abc", parameters={})
        inputs = {"inputs": "abc", "parameters": {"max_new_tokens": 5}}
        await client.post(key="key-of-bob", path="/generate_stream", **inputs)
        async with client.session.get(client.url + "/gateway/metrics") as answer:
            page = await answer.text()
    kinds = 'fairshare_gateway_tokens_total{kind="%s",tenant="%s"} %.1f'
    assert kinds % ("output", "alice", 12) in page
    assert kinds % ("prompt", "alice", 3 + 3 + 5) in page
    assert kinds % ("output", "bob", 16 + 5) in page


async def test_the_queue_is_the_gateways_and_the_policy_orders_it() -> None:
    """With a window of one, a light tenant's request goes before a heavy one's earlier ones."""
    async with (
        FakeServer(Behaviour(ttft_s=0.02)) as server,
        gateway(server, policy="vtc", window=1) as client,
    ):
        heavy = [asyncio.create_task(client.post(prompt=[7] * 50)) for _ in range(6)]
        await client.when("queued", 5)
        light = asyncio.create_task(client.post(key="key-of-bob", prompt=[8]))
        await asyncio.gather(light, *heavy)
        order = [seen.body["prompt"][0] for seen in server.seen]
    assert server.peak_running == 1
    assert order.index(8) <= 2


@pytest.mark.parametrize("clients", [200, pytest.param(2000, marks=pytest.mark.full)])
async def test_many_clients_wait_and_each_gets_its_answer(clients: int) -> None:
    """A long queue loses nobody."""
    async with FakeServer() as server, gateway(server, max_queued_per_tenant=4000) as client:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as client.session:
            answers = await asyncio.gather(*(client.post(max_tokens=1) for _ in range(clients)))
        assert {status for status, _, _ in answers} == {200}
        assert server.peak_running <= 32


async def test_what_the_policy_knows_reaches_the_server_and_nothing_that_clients_claim() -> None:
    """Ranks and tenants in body and header are the gateway's own; keys and claims stay here."""
    seen: dict[str, Any] = {}

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.Response:
        seen.update(headers=request.headers.copy(), body=await request.json())
        return aiohttp.web.json_response({"choices": [{"finish_reason": "stop"}]})

    app = aiohttp.web.Application()
    app.router.add_post(PATH, answer)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", free_port())
    await site.start()
    claims = {
        "x-fairshare-tenant": "bob",
        "x-llm-d-inference-fairness-id": "bob",
        "X-Vllm-Priority": "-99",
    }
    try:
        given = {"policy": "vtc", "send_priority": True, "tenant_in_body": True}
        async with gateway(upstream=site.name, **given) as client:
            await client.post(headers=claims, priority=-99, stream=False)
    finally:
        await runner.cleanup()
    assert seen["headers"]["X-Vllm-Priority"] == str(seen["body"]["priority"]) == "3"
    assert seen["body"]["vllm_xargs"] == {"tenant": "alice"}
    assert not {"authorization", *map(str.lower, claims)} - {"x-vllm-priority"} & {
        name.lower() for name in seen["headers"]
    }


async def test_clients_that_leave_free_their_place_whether_they_wait_or_run() -> None:
    """Who goes away is withdrawn, and the server learns it."""
    async with (
        FakeServer(Behaviour(kind=Kind.STALL)) as server,
        gateway(server, window=1) as client,
    ):
        running = asyncio.create_task(client.post())
        await server.when_running(1)
        queued = asyncio.create_task(client.post())
        await client.when("queued", 1)
        queued.cancel()
        await client.when("queued", 0)
        running.cancel()
        await client.when("outstanding", 0)
        await until(lambda: not server.running)


async def test_bounds_refuse_with_a_time_to_come_back() -> None:
    """A full queue is 429, one that waited too long 503, and both say when to try again."""
    limits = {"window": 1, "max_queued_per_tenant": 1, "ttl_s": 0.3}
    async with (
        FakeServer(Behaviour(kind=Kind.STALL)) as server,
        gateway(server, **limits) as client,
    ):
        running = asyncio.create_task(client.post())
        await server.when_running(1)
        queued = asyncio.create_task(client.post())
        await client.when("queued", 1)
        status, body, headers = await client.post()
        assert (status, orjson.loads(body)["error"]["type"]) == (429, "tenant_queue_full")
        assert int(headers["Retry-After"]) >= 1
        status, body, headers = await queued
        assert (status, orjson.loads(body)["error"]["type"]) == (503, "expired")
        assert int(headers["Retry-After"]) >= 1
        running.cancel()


@pytest.mark.parametrize("kind", [Kind.DISCONNECT, Kind.GARBAGE_EVENTS, Kind.HUGE_LINE])
async def test_a_stream_that_breaks_is_never_a_whole_answer(kind: Kind) -> None:
    """What came goes on; a break is an error event and no regular end; nothing is sent twice."""
    async with FakeServer(Behaviour(kind=kind)) as server, gateway(server) as client:
        try:
            status, body, _ = await client.post()
        except aiohttp.ClientPayloadError:
            status, body = 200, b""
        if kind is Kind.GARBAGE_EVENTS:
            assert b"It works!" in body  # passed on as it is
        else:
            assert b"[DONE]" not in body
        await client.when("outstanding", 0)
        assert (status, len(server.seen)) == (200, 1)


async def test_a_failure_before_the_first_token_costs_nothing() -> None:
    """Errors by status and inside a stream are handed on and paid back."""
    for kind in (Kind.HTTP_500, Kind.HTTP_400):
        failing = FakeServer(Behaviour(kind=kind))
        async with failing as server, gateway(server, policy="vtc") as client:
            status, body, _ = await client.post()
            assert (status, b"told to answer" in body) == (int(kind.value[-3:]), True)
            assert client.gateway.admission.policy.counters().get("alice", 0) == 0


async def test_a_missing_server_is_502_and_one_that_comes_is_used() -> None:
    """The gateway starts without a server, says so to clients, and needs no restart."""
    port = free_port()
    async with gateway(upstream=f"http://127.0.0.1:{port}") as client:
        status, body, _ = await client.post()
        assert (status, orjson.loads(body)["error"]["type"]) == (502, "upstream_unavailable")
        assert "refused" in (await client.health())["upstream_error"].lower()
        async with FakeServer(port=port):
            status, _, _ = await client.post()
            assert status == 200
        assert (await client.health())["outstanding"] == 0


async def test_a_server_that_never_answers_is_given_up() -> None:
    """Silence beyond its limit is a failure, and frees the place."""
    stalling = FakeServer(Behaviour(kind=Kind.STALL))
    async with stalling as server, gateway(server, upstream_timeout_s=0.5) as client:
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.post()
        await client.when("outstanding", 0)


ANSWERS = {
    b"counted": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Odd: a\nX-Put: b\r\nX-Own: 1\r\n\r\nhi",
    b"chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    b"to-the-end": b"HTTP/1.0 200 OK\r\nDate: Sat, 21 Nov 2026 00:00:00 GMT\r\n\r\nhi",
    b"empty": b"HTTP/1.1 204 No Content\r\nX-Own: 1\r\n\r\n",
}


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("kind", ANSWERS)
async def test_heads_are_made_anew_for_the_connection_to_the_client(
    kind: bytes, version: bytes
) -> None:
    """However a server ends its body, the client's version of HTTP can tell its end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if kind in asked:
            writer.write(ANSWERS[kind])
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, gateway(upstream=f"http://127.0.0.1:{port}") as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.gateway.port)
        writer.write(
            b"GET /%b HTTP/%b\r\nHost: x\r\nX-Api-Key: key-of-bob\r\n\r\n" % (kind, version)
        )
        head, _, begun = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        ends = version == b"1.0"
        assert fields[b"connection"] == (b"close" if ends else b"keep-alive")
        assert b"date" in fields
        assert b"x-put" not in head.lower()
        assert (b"x-own" in fields) == (kind in (b"counted", b"empty"))
        whole = {b"counted": b"hi", b"empty": b""}.get(
            kind, b"hi" if ends else b"2\r\nhi\r\n0\r\n\r\n"
        )
        assert begun + await (reader.read() if ends else reader.readexactly(len(whole))) == whole
        assert fields.get(b"transfer-encoding") == (b"chunked" if b"0\r\n" in whole else None)
        writer.close()


async def test_other_routes_are_passed_on_or_refused_as_documented() -> None:
    """What generates nothing goes past the queue; what might is refused; strangers stay out."""
    async with FakeServer() as server, gateway(server) as client:
        edge = {"Authorization": "Bearer key-of-the-edge"}
        async with client.session.get(client.url + "/v1/models", headers=edge) as answer:
            assert (await answer.json())["data"][0]["id"] == "fake"
        async with client.session.get(client.url + "/v1/models") as answer:
            assert answer.status == 401
        async with client.session.get(client.url + "/health") as answer:
            assert answer.status == 200
        assert (await client.post(path="/v1/responses"))[0] == 404
        assert (await client.post(path="/v1//completions"))[0] == 404
        assert (await client.post(key="wrong"))[0] == 401
        assert server.seen == []


async def test_hostile_clients_are_cut_off_and_others_are_served() -> None:
    """Large and slow bodies, endless headers and half requests end; the gateway goes on."""
    limits = {"max_body_bytes": 10_000, "body_timeout_s": 0.3}
    async with FakeServer() as server, gateway(server, **limits) as client:
        assert (await client.post(prompt="x" * 20_000))[0] == 413
        port = client.gateway.port
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Api-Key: key-of-alice\r\n"
        for sent, status in (
            (head + b"Content-Length: 50\r\n\r\n{", b"408"),
            (head + b"X-Long: " + b"x" * 100_000 + b"\r\n\r\n", b"400"),
            (head + b"Content-Length: 3\r\n\r\n{]}", b"400"),
            (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            assert status in await reader.readline()
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)  # and never the rest
        assert (await client.post())[0] == 200
        writer.transport.abort()


async def test_bodies_of_other_shapes_are_served_or_refused_aloud() -> None:
    """A body that begins with a space gets its rank too; one that cannot be unpacked is a 400."""
    body = b' \n{"model": "fake", "prompt": [1], "max_tokens": 2}'
    async with FakeServer() as server, gateway(server, policy="vtc", send_priority=True) as client:
        for packing, status in (("identity", 200), ("gzip", 400)):
            headers = {"X-Api-Key": "key-of-bob", "Content-Encoding": packing}
            url = client.url + PATH
            async with client.session.post(url, data=body, headers=headers) as answer:
                assert answer.status == status
    assert [seen.body["priority"] for seen in server.seen] == [1]


async def test_what_is_no_request_is_a_400_and_its_bytes_are_in_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A client's slip does not write its key into the gateway's output."""
    async with FakeServer() as server, gateway(server) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.gateway.port)
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nX-Api-Key: a-secret\0\r\n\r\n".encode())
        assert b" 400 " in await reader.readline()
        writer.close()
    assert "a-secret" not in caplog.text


async def test_a_client_that_does_not_read_holds_the_server_up_and_is_cut_off() -> None:
    """What nobody reads is not piled up in memory, and its place is free after a while."""
    async with FakeServer() as server, gateway(server, client_timeout_s=0.3) as client:
        body = orjson.dumps({"model": "fake", "prompt": [1], "max_tokens": 400_000, "stream": True})
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Api-Key: key-of-alice\r\n"
        _, writer = await asyncio.open_connection("127.0.0.1", client.gateway.port, limit=1024)
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await server.when_running(1)
        await client.when("outstanding", 0)
        await until(lambda: not server.running)
        assert not server.seen[0].finished
        writer.transport.abort()


async def test_a_port_in_use_is_said_with_what_helps() -> None:
    """Two gateways cannot have one port, and the second says so."""
    async with FakeServer() as server, gateway(server) as client:
        with pytest.raises(PreflightError, match="--port"):
            async with gateway(server, port=client.gateway.port):
                pass


@asynccontextmanager
async def program(server: FakeServer, folder: Path, **given: Any) -> AsyncIterator[Any]:
    """The gateway as a process; it and its URL."""
    settings = GatewaySettings(upstream=server.base_url, **given)
    path = folder / "settings.json"
    path.write_text(settings.model_dump_json())
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fairshare.gateway", "--settings", str(path)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "KEY_OF_ALICE": "key-of-alice"},
    )
    try:
        assert process.stdout is not None
        port = json.loads(await process.stdout.readline())["port"]
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_stopping_gateway_ends_what_runs_and_turns_others_away(tmp_path: Path) -> None:
    """SIGTERM lets a running stream end, refuses new requests with 503, and ends with 0."""
    log = tmp_path / "decisions.jsonl"
    behaviour = Behaviour(ttft_s=0.2, itl_s=0.05)
    tenants = {"alice": {"key_env": "KEY_OF_ALICE"}}
    async with (
        FakeServer(behaviour) as server,
        program(server, tmp_path, window=1, tenants=tenants, event_log=log) as (process, url),
        aiohttp.ClientSession() as session,
    ):
        body = {"model": "fake", "prompt": [1], "max_tokens": 10, "stream": True}
        key = {"x-api-key": "key-of-alice"}

        async def post() -> tuple[int, bytes]:
            async with session.post(url + PATH, json=body, headers=key) as answer:
                return answer.status, await answer.read()

        running = asyncio.create_task(post())
        await server.when_running(1)
        process.send_signal(signal.SIGTERM)
        await draining(session, url)
        assert (await post())[0] == 503
        status, answer = await running
        assert (status, answer.endswith(b"data: [DONE]\n\n")) == (200, True)
        assert await process.wait() == 0
    events = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    decisions = [each["event"] for each in events if each["event"] != "state"]
    assert decisions[:5] == ["started", "arrived", "admitted", "first_token", "finished"]
    assert events[-1]["event"] == "stopped"
    assert (log.stat().st_mode & 0o777) == 0o600
    assert b"key-of-alice" not in log.read_bytes()


async def test_a_request_that_is_still_being_sent_is_turned_away_by_a_stopping_gateway() -> None:
    """A body that ends after the stop began is refused, and the gateway still comes to an end."""
    async with FakeServer(Behaviour(ttft_s=0.1)) as server, gateway(server, window=1) as client:
        body = json.dumps({"model": "fake", "prompt": [9], "max_tokens": 2}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", client.gateway.port)
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nX-Api-Key: key-of-bob\r\nExpect: 100-continue\r\n"
        )
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")  # its body is waited for
        running = asyncio.create_task(client.post())
        await client.when("outstanding", 1)
        stopping = asyncio.create_task(client.gateway.drain(60.0))
        await draining(client.session, client.url)
        writer.write(body)
        assert b" 503 " in await reader.readline()
        writer.close()
        assert (await running)[0] == 200
        async with asyncio.timeout(20):
            await stopping
    assert [seen.body["prompt"] for seen in server.seen] == [[1, 2, 3]]


async def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    """Who asks twice does not wait for a stream that never ends."""
    async with (
        FakeServer(Behaviour(kind=Kind.STALL)) as server,
        program(server, tmp_path) as (process, url),
        aiohttp.ClientSession() as session,
    ):
        body = {"model": "fake", "prompt": [1], "max_tokens": 10, "stream": True}
        running = asyncio.create_task(session.post(url + PATH, json=body))
        await server.when_running(1)
        process.send_signal(signal.SIGINT)
        await draining(session, url)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            assert await process.wait() == 0
        await asyncio.wait({running})
