"""Hostile servers, over each transport: what they do is classified, bounded and recorded."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from load_bench import BENCH, Outcome, closed, run, scheduled

from fairshare.records import ErrorKind, RequestRecord, TransportKind
from fairshare.spec.scenario import Timing

OK = b"HTTP/1.1 200 OK\r\n"
SSE = OK + b"Content-Type: text/event-stream\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
JSON = b"Content-Type: application/json\r\n"
TEXT = "grüße 🙂"
FLOOD = 64 << 20  # what a server may send at most before it is a failure of the test's own bound
SENT_AT_MOST = 24 << 20  # of an endless answer: what the client reads, and what the kernel buffers


def message(**body: object) -> bytes:
    """The JSON of one event."""
    return orjson.dumps(body)


def event(data: bytes) -> bytes:
    """One event."""
    return b"data: " + data + b"\n\n"


def token(number: int, finish: str | None = None) -> bytes:
    """An event of one token."""
    return event(message(choices=[{"text": TEXT, "token_ids": [number], "finish_reason": finish}]))


USAGE = message(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2})
FIRST, LAST, COUNT, DONE = token(1), token(2, "length"), event(USAGE), event(b"[DONE]")
WHOLE = FIRST + LAST + COUNT + DONE
FANCY = (
    b"\xef\xbb\xbf: hello\r\n\r\nevent: token\r\nid: 1\r\nretry: 5\r\n"
    + FIRST.replace(b'"choices"', b'\r\ndata: "choices"').rstrip()
    + b"\r\n\r\n:\r\n\r\n"
    + LAST.replace(b"\n\n", b"\r\r")
    + b"data:"
    + USAGE
    + b"\n\r\n"
    + DONE
)


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


END = b"0\r\n\r\n"
STREAM = SSE + CHUNKED + chunk(WHOLE) + END


@dataclass
class Server:
    """A server that answers each request by a script; ``sent`` counts the bytes it got rid of."""

    base_url: str = ""
    model: str = "fake"
    asked: int = 0
    sent: int = 0
    times_s: list[float] = field(default_factory=list)

    async def say(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Send, and wait until the kernel has taken most of it."""
        writer.write(data)
        await writer.drain()
        self.sent += len(data)


Script = Callable[[Server, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Server]:
    """A server on a port of its own."""
    server, tasks = Server(), set[asyncio.Task[Any]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]  # a coroutine is in a task
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                await reader.readexactly(length)
                server.asked += 1
                server.times_s.append(time.monotonic())
                await script(server, writer)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    server.base_url = f"http://127.0.0.1:{port}"
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


# Ways of answering.


def saying(*pieces: bytes) -> Script:
    """Send these pieces, each on its own."""

    async def script(server: Server, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            await server.say(writer, piece)
            await asyncio.sleep(0)

    return script


def hanging_up(*pieces: bytes) -> Script:
    """Send these pieces and close, as is right without a length."""

    async def script(server: Server, writer: asyncio.StreamWriter) -> None:
        await saying(*pieces)(server, writer)
        raise ConnectionResetError

    return script


def resetting(*pieces: bytes) -> Script:
    """Send these pieces, then break the connection by a reset."""

    async def script(server: Server, writer: asyncio.StreamWriter) -> None:
        await saying(*pieces)(server, writer)
        bare: socket.socket = writer.get_extra_info("socket")
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    return script


def endless(start: bytes, piece: bytes) -> Script:
    """Send ``piece`` for ever, as fast as it is taken."""

    async def script(server: Server, writer: asyncio.StreamWriter) -> None:
        await server.say(writer, start)
        many = piece * max(1, 60_000 // len(piece))
        while server.sent < FLOOD:
            await server.say(writer, many)
            await asyncio.sleep(0)

    return script


def trickling(data: bytes, every_s: float = 0.02) -> Script:
    """Send one byte at a time, slowly."""
    return slowly([data[i : i + 1] for i in range(len(data))], every_s)


def slowly(pieces: Sequence[bytes], every_s: float) -> Script:
    """Send these pieces, one every so often."""

    async def script(server: Server, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            await server.say(writer, piece)
            await asyncio.sleep(every_s)

    return script


def bytewise(data: bytes) -> Script:
    """Send one byte at a time, each in a packet of its own."""
    return slowly([data[i : i + 1] for i in range(len(data))], 0)


GOOD: dict[str, Script] = {
    "plain": saying(STREAM),
    "byte by byte, characters too": bytewise(STREAM),
    "a chunk for each byte": saying(
        SSE + CHUNKED, *(chunk(WHOLE[i : i + 1]) for i in range(len(WHOLE))), END
    ),
    "CRLF, CR, comments, data in several lines": saying(SSE + CHUNKED + chunk(FANCY) + END),
    "the same, byte by byte": bytewise(SSE + CHUNKED + chunk(FANCY) + END),
    "chunk extensions and trailers": saying(
        SSE + CHUNKED, b"%X;a=b\r\n" % len(WHOLE) + WHOLE + b"\r\n0\r\nX-Sum: 1\r\n\r\n"
    ),
    "a stated length": saying(SSE + b"Content-Length: %d\r\n\r\n" % len(WHOLE) + WHOLE),
    "until the connection closes": hanging_up(SSE + b"\r\n" + WHOLE),
    "headers in any case, one of them over two lines": saying(
        OK + b"CONTENT-TYPE: Text/Event-Stream ;\r\n charset=UTF-8\r\nX-A: 1\r\n\tmore\r\n"
        b"transfer-encoding:  Chunked \r\n\r\n" + chunk(WHOLE) + END
    ),
    "HTTP/1.0, until the connection closes": hanging_up(
        SSE.replace(b"1.1", b"1.0") + b"\r\n" + WHOLE
    ),
    "HTTP/1.0 with a stated length": saying(
        SSE.replace(b"1.1", b"1.0") + b"Content-Length: %d\r\n\r\n" % len(WHOLE) + WHOLE
    ),
    "several informational answers first": bytewise(
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + STREAM
    ),
    "100 Continue first": saying(b"HTTP/1.1 100 Continue\r\n\r\n" + STREAM),
    "closed after each answer without a word": hanging_up(STREAM),
    "reset after the body": resetting(STREAM),
    "the end of the body is missing": resetting(SSE + CHUNKED + chunk(WHOLE)),
    "more after the end": saying(SSE + CHUNKED + chunk(WHOLE + FIRST * 9) + END),
}
BAD: dict[str, tuple[Script, ErrorKind]] = {
    "another protocol": (saying(b"SSH-2.0-OpenSSH_9.2\r\n" * 2), ErrorKind.BAD_RESPONSE),
    "garbage for the size of a chunk": (saying(SSE + CHUNKED + b"zz\r\n"), ErrorKind.BAD_RESPONSE),
    "garbage for the size of a later chunk, then silence": (
        slowly([SSE + CHUNKED, chunk(FIRST), b"zz\r\n"], 0.05),
        ErrorKind.BAD_RESPONSE,
    ),
    "a chunk longer than it says": (
        saying(SSE + CHUNKED + b"5\r\n" + WHOLE),
        ErrorKind.BAD_RESPONSE,
    ),
    "garbage in chunks": (
        saying(SSE + CHUNKED + chunk(b"\x00\xff\n\n" * 99) + END),
        ErrorKind.BAD_RESPONSE,
    ),
    "data that is no JSON": (
        saying(SSE + CHUNKED + chunk(event(b"<html>")) + END),
        ErrorKind.BAD_RESPONSE,
    ),
    "data that is no UTF-8": (
        saying(SSE + CHUNKED + chunk(event(b'{"choices":[{"text":"\xff"}]}')) + END),
        ErrorKind.BAD_RESPONSE,
    ),
    "JSON nested without end": (
        saying(SSE + CHUNKED + chunk(event(b"[" * 100_000)) + END),
        ErrorKind.BAD_RESPONSE,
    ),
    "half a line, then the end": (
        saying(SSE + CHUNKED + chunk(FIRST + LAST[:20]) + END),
        ErrorKind.INCOMPLETE,
    ),
    "compressed, unasked": (
        saying(SSE + b"Content-Encoding: gzip\r\n" + CHUNKED + chunk(gzip.compress(WHOLE)) + END),
        ErrorKind.BAD_RESPONSE,
    ),
    "nonsense between tokens, then silence": (
        slowly([SSE + CHUNKED, *map(chunk, (FIRST, FIRST, event(b"{no}"), FIRST))], 0.01),
        ErrorKind.BAD_RESPONSE,
    ),
    "two lengths": (
        saying(SSE + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + WHOLE),
        ErrorKind.BAD_RESPONSE,
    ),
    "a page": (
        saying(OK + b"Content-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"),
        ErrorKind.BAD_RESPONSE,
    ),
    "no content type": (saying(OK + CHUNKED + chunk(WHOLE) + END), ErrorKind.BAD_RESPONSE),
    "200 with an error for a stream": (
        saying(OK + JSON + b'Content-Length: 19\r\n\r\n{"error":"no slot"}'),
        ErrorKind.SERVER_ERROR,
    ),
    "200 with an error in the stream": (
        saying(SSE + CHUNKED + chunk(FIRST + event(message(error="died")) + DONE) + END),
        ErrorKind.SERVER_ERROR,
    ),
    "a redirect": (
        saying(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"),
        ErrorKind.BAD_RESPONSE,
    ),
    "reset before a byte": (resetting(), ErrorKind.DISCONNECT),
    "reset in the head": (resetting(SSE), ErrorKind.DISCONNECT),
    "reset in the body": (resetting(SSE + CHUNKED + chunk(FIRST)), ErrorKind.DISCONNECT),
    "closed in the body": (hanging_up(SSE + CHUNKED + chunk(FIRST)), ErrorKind.DISCONNECT),
    "closed in a chunk": (hanging_up(SSE + CHUNKED + chunk(FIRST)[:-9]), ErrorKind.DISCONNECT),
    "429": (
        saying(b"HTTP/1.1 429 Slow Down\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\nslow"),
        ErrorKind.THROTTLED,
    ),
    "503": (
        saying(b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\n" + CHUNKED + chunk(b"busy") + END),
        ErrorKind.HTTP_5XX,
    ),
    "no answer": (saying(), ErrorKind.TIMEOUT),
    "a head byte by byte": (trickling(STREAM), ErrorKind.TIMEOUT),
    "a body byte by byte": (
        slowly([STREAM[:200], *(STREAM[i : i + 1] for i in range(200, 400))], 0.02),
        ErrorKind.TIMEOUT,
    ),
    "comments without end": (
        slowly([SSE + CHUNKED + chunk(FIRST), *[chunk(b": ping\n\n")] * 99], 0.02),
        ErrorKind.TIMEOUT,
    ),
    "tokens without end": (endless(SSE + CHUNKED, chunk(FIRST)), ErrorKind.BAD_RESPONSE),
    "events without a token and without end": (
        endless(SSE + CHUNKED, chunk(event(message(choices=[{"text": ""}])))),
        ErrorKind.TIMEOUT,
    ),
    "a line without end": (
        endless(SSE + CHUNKED, chunk(b"data: " + b"x" * 30_000)),
        ErrorKind.BAD_RESPONSE,
    ),
    "an event of lines without end": (
        endless(SSE + CHUNKED, chunk(b"data: x\n" * 3000)),
        ErrorKind.BAD_RESPONSE,
    ),
    "a chunk without end": (
        endless(SSE + CHUNKED + b"ffffffffff\r\n", b"x"),
        ErrorKind.BAD_RESPONSE,
    ),
    "a head without end": (endless(SSE + b"X: ", b"x"), ErrorKind.BAD_RESPONSE),
    "headers without end": (endless(SSE, b"X-More: yes\r\n"), ErrorKind.BAD_RESPONSE),
    "a page without end": (
        endless(OK + b"Content-Type: text/html\r\n\r\n", b"<p>"),
        ErrorKind.BAD_RESPONSE,
    ),
    "an error page without end": (
        endless(b"HTTP/1.1 500 Oh\r\nContent-Type: text/html\r\n\r\n", b"<p>"),
        ErrorKind.HTTP_5XX,
    ),
}
FEW = Timing(warmup_s=0, window_s=20, drain_s=5, requests=2)


@pytest.fixture(params=[TransportKind.STREAM, TransportKind.AIOHTTP], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TransportKind:
    """Each test, over each transport."""
    monkeypatch.setattr(BENCH, "transport", request.param)
    kind: TransportKind = request.param
    return kind


async def hostile(script: Script, **fields: Any) -> tuple[Server, list[RequestRecord]]:
    """Two requests to a server that answers so, and their records in order."""
    async with serving(script) as server:
        fake: Any = server
        given = {"timeout_s": 0.5, "stall_s": 0.4} | fields
        outcome = await run([closed(fake, 1, **given)], FEW)
    return server, sorted(outcome.records, key=lambda record: record.intended_ns)[:2]


@pytest.mark.parametrize("name", GOOD)
async def test_odd_but_right_answers_are_whole(name: str) -> None:
    """However it is cut, framed and ended: both tokens, exactly, and no failure."""
    _, records = await hostile(GOOD[name], timeout_s=20, stall_s=20)
    for record in records:
        assert record.error is None, record.error_text
        assert (record.chunk_tokens, record.output_tokens) == ([1, 1], 2)


@pytest.mark.parametrize("name", BAD)
async def test_each_hostile_answer_has_its_kind_within_its_bounds(name: str) -> None:
    """One record of the right kind per request, small and in time, whatever a server sends."""
    script, kind = BAD[name]
    began_s = time.monotonic()
    server, records = await hostile(script)
    assert time.monotonic() - began_s < 10
    assert server.asked >= 2
    assert server.sent < SENT_AT_MOST * server.asked
    for record in records:
        assert record.error is kind, record.error_text
        assert record.error_text
        assert len(record.to_json()) < 20_000
        assert record.end_ns is not None
        assert record.sent_ns is not None
        assert record.end_ns - record.sent_ns < 2e9


async def test_a_whole_answer_without_end_is_not_kept_for_ever() -> None:
    """What is not streamed is collected, up to a bound."""
    script = endless(OK + JSON + b"\r\n", b" ")
    server, records = await hostile(script, stream=False, timeout_s=20)
    assert records[0].error is ErrorKind.BAD_RESPONSE
    assert "bounded size" in (records[0].error_text or "")
    assert server.sent < SENT_AT_MOST * server.asked


REFUSAL = b"HTTP/1.1 %d No\r\nRetry-After: %s\r\nContent-Length: 4\r\n\r\nbusy"


@pytest.mark.parametrize("status", [429, 503])
async def test_a_closed_loop_waits_as_long_as_it_is_told(status: int) -> None:
    """Retry-After is kept with the record, and the client asks again only then."""
    async with serving(saying(REFUSAL % (status, b"1"))) as server:
        fake: Any = server
        outcome = await run([closed(fake, 1)], Timing(warmup_s=0, window_s=1.6, drain_s=1))
    assert [record.retry_after_s for record in outcome.records] == [1.0, 1.0]
    assert [(record.error_text or "")[:3] for record in outcome.records] == [str(status)] * 2
    assert server.times_s[1] - server.times_s[0] >= 0.99


async def test_an_open_loop_neither_waits_nor_retries() -> None:
    """Its schedule is its own: each request is sent once, when it is due."""
    async with serving(saying(REFUSAL % (429, b"60"))) as server:
        fake: Any = server
        load = scheduled(fake, [0.0, 0.1, 0.2, 0.3])
        outcome: Outcome = await run([load], Timing(warmup_s=0, window_s=0.5, drain_s=1))
    assert server.asked == len(outcome.records) == 4
    sent = [(record.sent_ns or 0) - record.intended_ns for record in outcome.records]
    assert max(sent) < 0.5e9  # and not the minute that it is told to wait
