"""One answer on its way from the server to the client, counted as it passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from enum import Enum, auto
from http import HTTPStatus

import orjson
from aiohttp import web
from aiohttp.http import HttpVersion11

from fairshare.gateway.metering import Meter, StreamMeter
from fairshare.gateway.upstream import Connection, Upstream
from fairshare.wire.http1 import Http1Response

HIGH_WATER_BYTES = 128 << 10  # a client that has so much to read yet holds up the server's stream
_EVENT_STREAM = "text/event-stream"
# Between two connections only, or made anew for the client's.
_NOT_FORWARDED = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization"),
    *(b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length"),
}
_BODILESS = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


class Outcome(Enum):
    """How an answer ended."""

    COMPLETE = auto()
    """The server answered; whether with an error is in its status."""
    BROKEN = auto()
    """The server broke off, or said that it failed."""


class Relayed(web.StreamResponse):
    """What aiohttp is told of an answer whose bytes a relay has written: nothing is left to do."""

    def __init__(self, *, status: int, keep_alive: bool) -> None:
        super().__init__(status=status)
        self._kept = keep_alive

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection to the client can take another request."""
        return self._kept

    async def prepare(self, request: web.BaseRequest) -> None:
        """Its head is out."""

    async def write_eof(self, data: bytes = b"") -> None:
        """So is its end."""


class Relay:
    """Hands an answer on. ``on_progress`` is called whenever the meter has moved.

    All that the server says goes to the client's connection in the turn of the event loop in which
    it came, the head with the first bytes of the body: one write, and no task is woken.
    """

    def __init__(
        self, request: web.BaseRequest, meter: Meter | None, on_progress: Callable[[], None]
    ) -> None:
        self._request = request
        self._transport = request.transport
        self._meter = meter
        self._on_progress = on_progress
        self._chunked = request.version >= HttpVersion11
        self._keep_alive = request.keep_alive
        self._head = b""  # made and not yet written
        self._stream = False
        self._wake = asyncio.Event()
        self._connection: Connection | None = None
        self._full = False
        self._over = False
        self._tokens = -1
        self.sent = False
        """Whether the server has been asked."""
        self.status = 0
        self.error: Exception | None = None

    @property
    def outcome(self) -> Outcome:
        """How it ended, once it has."""
        broken = self.error is not None or (self._meter is not None and self._meter.error)
        return Outcome.BROKEN if broken else Outcome.COMPLETE

    @property
    def heard_s(self) -> float | None:
        """When the server last said anything."""
        if self._connection is None or self._full:
            return None
        return self._connection.heard_s

    async def run(
        self, upstream: Upstream, message: bytes, client_timeout_s: float
    ) -> web.StreamResponse:
        """Send the request, and its answer to the client.

        Raises:
            UpstreamError: the server failed before it said anything.
        """
        self._connection = await upstream.connect()
        try:
            self._connection.send(message, self)
            self.sent = True
            await self._flow(client_timeout_s)
        finally:
            if not self._over:
                self._connection.drop()
        if self.error is not None:
            if not self.status:
                raise self.error
            self._break_off(self.error)
        return Relayed(status=self.status, keep_alive=self._keep_alive)

    def give_up(self, error: Exception) -> None:
        """End it from outside."""
        if self._connection is not None and not self._over:
            self._connection.drop()
            self.failed(error)

    # The server's side.

    def head(self, response: Http1Response) -> None:
        """The status and the headers are there; ``data`` follows, if only with nothing."""
        self.status = status = response.status or 0
        if not 200 <= status < 300:
            self._meter = None  # an error is nothing to charge for, or to hide anything in
        fields = response.fields
        self._stream = response.content_type.startswith(_EVENT_STREAM)
        kept = [each for each in fields.items() if _forwarded(*each)]
        length = fields.get(b"content-length")
        if status in _BODILESS:
            self._chunked = False
        elif length is not None and not isinstance(self._meter, StreamMeter):
            kept.append((b"content-length", length))
            self._chunked = False
        elif self._chunked:
            kept.append((b"transfer-encoding", b"chunked"))
        else:
            self._keep_alive = False  # the end of the connection is the end of the body
        if b"date" not in fields:
            kept.append((b"date", formatdate(usegmt=True).encode()))
        kept.append((b"connection", b"keep-alive" if self._keep_alive else b"close"))
        lines = [b"HTTP/1.1 %d %b" % (status, _PHRASES.get(status, b""))]
        lines += [b"%b: %b" % each for each in kept]
        self._head = b"\r\n".join(lines) + b"\r\n\r\n"

    def data(self, body: bytes) -> None:
        """Bytes of the body: count them, and write what the client is to see of them."""
        meter = self._meter
        if meter is not None:
            body = meter.feed(body)
            if meter.tokens != self._tokens:
                self._tokens = meter.tokens
                self._on_progress()
        if not body and not self._head:
            return
        self._write(body)
        transport = self._transport
        if (
            transport is not None
            and transport.get_write_buffer_size() > HIGH_WATER_BYTES
            and not self._full
        ):
            self._full = True
            if self._connection is not None:
                self._connection.pause()
            self._wake.set()

    def ended(self) -> None:
        """That was all."""
        self._over = True
        rest = b""
        if self._meter is not None:
            rest = self._meter.close()
            self._on_progress()
        self._write(rest, end=b"0\r\n\r\n" if self._chunked else b"")
        self._wake.set()

    def failed(self, error: Exception) -> None:
        """The server broke off."""
        self.error = error
        self._over = True
        self._wake.set()

    # The client's side.

    def _write(self, body: bytes, end: bytes = b"") -> None:
        head, self._head = self._head, b""
        if body and self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        data = head + body + end
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def _flow(self, client_timeout_s: float) -> None:
        """Wait until all of it was handed on; hold the server up while the client reads slowly."""
        while not self._over:
            await self._wake.wait()
            self._wake.clear()
            if self._full and not self._over:
                try:
                    async with asyncio.timeout(client_timeout_s):
                        await self._request.writer.drain()
                except TimeoutError:
                    raise ConnectionResetError("the client does not read its answer") from None
                self._full = False
                if self._connection is not None:
                    self._connection.resume()

    def _break_off(self, error: Exception) -> None:
        """Tell the client what happened, if it can be told, but not that the answer is whole."""
        told = b""
        if self._stream:
            told = b"\n\ndata: " + error_json(502, "upstream_broke_off", str(error)) + b"\n\n"
        self._write(told)
        self._keep_alive = False
        if self._transport is not None:
            self._transport.close()


def error_json(status: int, kind: str, message: str) -> bytes:
    """An error as OpenAI's protocol words it."""
    error = {"message": message, "type": kind, "param": None, "code": status}
    return orjson.dumps({"error": error})


def _forwarded(name: bytes, value: bytes) -> bool:
    line = name + value
    # A line break that is not HTTP's own would be one to some clients.
    return name not in _NOT_FORWARDED and b"\n" not in line and b"\r" not in line
