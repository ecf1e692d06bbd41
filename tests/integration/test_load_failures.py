"""Every way in which a server fails becomes one kind of error, and the run goes on."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import aiohttp
import pytest
from load_bench import BENCH, closed, run

from fairshare.records import ErrorKind, TransportKind
from fairshare.spec.scenario import Api, Timing
from fairshare.testing.behaviour import Behaviour, Kind
from fairshare.testing.fake_server import FakeServer

TIMING = Timing(warmup_s=0, window_s=20, drain_s=5, requests=6)
ONE = Timing(warmup_s=0, window_s=20, drain_s=5, requests=1)
STREAMED = {
    Kind.DISCONNECT: ErrorKind.DISCONNECT,
    Kind.GARBAGE: ErrorKind.BAD_RESPONSE,
    Kind.GARBAGE_EVENTS: ErrorKind.BAD_RESPONSE,
    Kind.HUGE_LINE: ErrorKind.BAD_RESPONSE,
    Kind.HTTP_400: ErrorKind.HTTP_4XX,
    Kind.HTTP_500: ErrorKind.HTTP_5XX,
    Kind.ERROR_THEN_DONE: ErrorKind.SERVER_ERROR,
    Kind.ABORT: ErrorKind.ABORTED,
    Kind.NO_FINISH: ErrorKind.INCOMPLETE,
    Kind.NO_USAGE: ErrorKind.NO_USAGE,
    Kind.STALL: ErrorKind.STALLED,
}
WHOLE = {
    Kind.DISCONNECT: ErrorKind.DISCONNECT,
    Kind.GARBAGE: ErrorKind.BAD_RESPONSE,
    Kind.HTTP_500: ErrorKind.HTTP_5XX,
    Kind.ERROR_THEN_DONE: ErrorKind.SERVER_ERROR,
    Kind.ABORT: ErrorKind.ABORTED,
    Kind.NO_FINISH: ErrorKind.INCOMPLETE,
    Kind.NO_USAGE: ErrorKind.NO_USAGE,
    Kind.STALL: ErrorKind.TIMEOUT,
}


@pytest.fixture(params=[TransportKind.STREAM, TransportKind.AIOHTTP], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TransportKind:
    """Each test, over each transport."""
    monkeypatch.setattr(BENCH, "transport", request.param)
    kind: TransportKind = request.param
    return kind


async def outcomes(kind: Kind, **fields: Any) -> list[tuple[ErrorKind | None, str | None]]:
    """How six requests end on a server that answers three well, then behaves as ``kind``."""
    async with FakeServer(Behaviour(kind=kind, after=3, ttft_s=0.002)) as server:
        outcome = await run([closed(server, 1, **fields)], TIMING)
    records = sorted(outcome.records, key=lambda record: record.intended_ns)
    assert all(record.end_ns is not None for record in records)
    return [(record.error, record.error_text) for record in records][:6]


@pytest.mark.parametrize(("kind", "error"), STREAMED.items())
async def test_each_failure_of_a_stream_has_its_kind(kind: Kind, error: ErrorKind) -> None:
    """Good answers stay good, each failure is one record of its kind with a short text."""
    found = await outcomes(kind, stall_s=0.15)
    assert [one for one, _ in found] == [None] * 3 + [error] * 3
    for _, text in found[3:]:
        assert text
        assert len(text) <= 300
        assert "\n" not in text


@pytest.mark.parametrize(("kind", "error"), WHOLE.items())
async def test_each_failure_of_a_whole_answer_has_its_kind(kind: Kind, error: ErrorKind) -> None:
    """What is not streamed fails by the same kinds; its silence is a timeout, not a stall."""
    found = await outcomes(kind, stream=False, stall_s=0.05, timeout_s=0.3)
    assert [one for one, _ in found] == [None] * 3 + [error] * 3


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (Kind.DISCONNECT, ErrorKind.DISCONNECT),
        (Kind.ERROR_THEN_DONE, ErrorKind.SERVER_ERROR),
        (Kind.NO_FINISH, ErrorKind.INCOMPLETE),
        (Kind.STALL, ErrorKind.STALLED),
    ],
)
async def test_each_failure_of_a_tgi_stream_has_its_kind(kind: Kind, error: ErrorKind) -> None:
    """TGI's streams fail by the same kinds."""
    found = await outcomes(kind, api=Api.TGI, stall_s=0.15)
    assert [one for one, _ in found] == [None] * 3 + [error] * 3


async def test_events_in_two_pieces_are_whole() -> None:
    """A network that cuts every line in two changes nothing."""
    assert [one for one, _ in await outcomes(Kind.HALF_LINES)] == [None] * 6


async def test_dead_server_is_a_disconnect_then_no_connection() -> None:
    """A server that dies breaks what is in flight; later requests cannot connect."""
    found = [one for one, _ in await outcomes(Kind.DIE_AFTER_REQUESTS)]
    assert found == [None] * 3 + [ErrorKind.DISCONNECT] + [ErrorKind.CONNECT] * 2


async def test_answer_that_takes_too_long_is_a_timeout() -> None:
    """The whole request has a limit, and waiting for the first token is no stall."""
    async with FakeServer(Behaviour(ttft_s=60)) as server:
        load = closed(server, 2, timeout_s=0.2, stall_s=0.05)
        outcome = await run([load], Timing(warmup_s=0, window_s=10, drain_s=5, requests=2))
    assert {record.error for record in outcome.records} == {ErrorKind.TIMEOUT}
    assert all((r.end_ns or 0) - (r.sent_ns or 0) >= 200_000_000 for r in outcome.records)


async def test_failures_do_not_turn_the_client_into_a_flood() -> None:
    """A server that refuses at once is not asked as fast as the client can."""
    async with FakeServer(Behaviour(kind=Kind.HTTP_500)) as server:
        await run([closed(server, 1)], Timing(warmup_s=0, window_s=0.5, drain_s=5))
        assert 2 <= len(server.seen) <= 4  # at 0, 0.1, 0.3 s


async def test_wrong_key_is_4xx_and_stays_out_of_the_record() -> None:
    """The key travels in a header only; the record does not quote it."""
    async with FakeServer(api_key="right") as server:
        outcome = await run([closed(server, 1, api_key="sk-wrong")], ONE)
    assert {record.error for record in outcome.records} == {ErrorKind.HTTP_4XX}
    assert not any(b"sk-wrong" in record.to_json() for record in outcome.records)


async def test_right_key_is_accepted() -> None:
    """The server's key opens it."""
    async with FakeServer(api_key="right") as server:
        outcome = await run([closed(server, 1, api_key="right")], TIMING)
    assert all(record.ok for record in outcome.records)


async def test_unknown_model_is_4xx_with_the_servers_words() -> None:
    """What the server says about a mistake is what the user reads."""
    async with FakeServer(model="other") as server:
        outcome = await run([closed(server, 1, model="mine")], ONE)
    assert outcome.records[0].error is ErrorKind.HTTP_4XX
    assert "`mine` does not exist" in (outcome.records[0].error_text or "")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", ErrorKind.BAD_RESPONSE),
        (b"", ErrorKind.DISCONNECT),
        (
            b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
            ErrorKind.BAD_RESPONSE,
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ErrorKind.BAD_RESPONSE),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 5\r\n\r\nhello",
            ErrorKind.BAD_RESPONSE,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            ErrorKind.BAD_RESPONSE,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            ErrorKind.BAD_RESPONSE,
        ),
    ],
    ids=["ssh", "silent", "redirect", "no-content", "no-event", "bad-chunk", "not-a-stream"],
)
async def test_what_is_not_even_http_has_a_kind(answer: bytes, error: ErrorKind) -> None:
    """Another program on the port, a proxy, broken framing: each is named, none crashes."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    listener = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, FakeServer() as server:
        load = closed(server, 1, base_url=f"http://127.0.0.1:{port}")
        outcome = await run([load], Timing(warmup_s=0, window_s=10, drain_s=5, requests=1))
    assert outcome.records[0].error is error, outcome.records[0].error_text


async def test_our_own_limits_are_the_clients_fault(
    transport: TransportKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running out of descriptors or ports is not blamed on the server."""
    limit = OSError(errno.EMFILE, "Too many open files")

    async def refuse(*args: object, **kwargs: object) -> None:
        if transport is TransportKind.STREAM:
            raise limit
        key: Any = type("Key", (), {"host": "h", "port": 1, "ssl": False})()
        raise aiohttp.ClientConnectorError(key, limit)

    if transport is TransportKind.AIOHTTP:
        monkeypatch.setattr(aiohttp.TCPConnector, "connect", refuse)
    async with FakeServer() as server:
        if transport is TransportKind.STREAM:
            monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", refuse)
        outcome = await run([closed(server, 1)], Timing(warmup_s=0, window_s=9, requests=1))
    assert outcome.records[0].error is ErrorKind.CLIENT
    assert "Too many open files" in (outcome.records[0].error_text or "")
