"""One answer on its way from the server to the client, counted as it passes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import Enum, auto

import orjson
from aiohttp import web
from aiohttp.http import HttpVersion11

from fairshare.gateway.metering import Meter
from fairshare.gateway.upstream import Connection, Upstream
from fairshare.wire.http1 import Http1Response

HIGH_WATER_BYTES = 128 << 10  # a client that has so much to read yet holds up the server's stream
_EVENT_STREAM = "text/event-stream"
# Between two connections only, or made anew for the client's.
_NOT_FORWARDED = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"),
    *("te", "trailer", "transfer-encoding", "upgrade", "content-length", "date", "server"),
}


class Outcome(Enum):
    """How an answer ended."""

    COMPLETE = auto()
    """The server answered; whether with an error is in its status."""
    BROKEN = auto()
    """The server broke off, or said that it failed."""


class Relay:
    """Hands an answer on. ``on_progress`` is called whenever the meter has moved."""

    def __init__(
        self, request: web.BaseRequest, meter: Meter | None, on_progress: Callable[[], None]
    ) -> None:
        self._request = request
        self._meter = meter
        self._on_progress = on_progress
        self._chunked = request.version >= HttpVersion11
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._head: asyncio.Future[Http1Response] = asyncio.get_running_loop().create_future()
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
            head = await self._head
            response = self._response(head)
            await response.prepare(self._request)
            self._open()
            await self._flow(client_timeout_s)
            await self._close(response)
        finally:
            if not self._over:
                self._connection.drop()
        return response

    def give_up(self, error: Exception) -> None:
        """End it from outside."""
        if self._connection is not None and not self._over:
            self._connection.drop()
            self.failed(error)

    # The server's side.

    def head(self, response: Http1Response) -> None:
        """The status and the headers are there."""
        self.status = response.status or 0
        if not 200 <= self.status < 300:
            self._meter = None  # an error is nothing to charge for, or to hide anything in
        if not self._head.done():
            self._head.set_result(response)

    def data(self, body: bytes) -> None:
        """Bytes of the body: count them, and write what the client is to see of them."""
        meter = self._meter
        if meter is not None:
            body = meter.feed(body)
            if meter.tokens != self._tokens:
                self._tokens = meter.tokens
                self._on_progress()
            if not body:
                return
        transport = self._transport
        if transport is None:
            self._early.append(body)
            return
        transport.write(b"%x\r\n%b\r\n" % (len(body), body) if self._chunked else body)
        if transport.get_write_buffer_size() > HIGH_WATER_BYTES and not self._full:
            self._full = True
            if self._connection is not None:
                self._connection.pause()
            self._wake.set()

    def ended(self) -> None:
        """That was all."""
        self._over = True
        if self._meter is not None:
            rest = self._meter.close()
            self._on_progress()
            if rest:
                self._write(rest)
        self._wake.set()

    def failed(self, error: Exception) -> None:
        """The server broke off."""
        self.error = error
        self._over = True
        if not self._head.done():
            self._head.set_exception(error)
        self._wake.set()

    # The client's side.

    def _response(self, head: Http1Response) -> web.StreamResponse:
        response = web.StreamResponse(status=self.status, headers=_forwarded(head.fields))
        length = head.fields.get(b"content-length")
        if length is not None and not self._streams(head):
            response.content_length = int(length)
            self._chunked = False
        elif self._chunked:
            response.enable_chunked_encoding()
        else:
            response.force_close()
        return response

    def _streams(self, head: Http1Response) -> bool:
        return head.content_type.startswith(_EVENT_STREAM)

    def _open(self) -> None:
        """From now on bytes go straight to the connection: a write each, and no task is woken."""
        self._transport = self._request.transport
        early, self._early = b"".join(self._early), []
        if early:
            self._write(early)

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        elif not self._transport.is_closing():
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

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

    async def _close(self, response: web.StreamResponse) -> None:
        if self.error is None:
            await response.write_eof()
            return
        if response.content_type == _EVENT_STREAM:
            self._write(b"\n\ndata: " + error_json(502, "upstream_broke_off", str(self.error)))
            self._write(b"\n\n")
        # No end of the body: a client must not take this for a whole answer.
        if self._transport is not None:
            self._transport.close()


def error_json(status: int, kind: str, message: str) -> bytes:
    """An error as OpenAI's protocol words it."""
    error = {"message": message, "type": kind, "param": None, "code": status}
    return orjson.dumps({"error": error})


def _forwarded(fields: dict[bytes, bytes]) -> Iterable[tuple[str, str]]:
    named = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in fields.items())
    return [(name, value) for name, value in named if name not in _NOT_FORWARDED]
