"""The transport on sockets of asyncio, with a reader of our own: stamp first, parse afterwards.

What arrived on all connections in one turn of the event loop is stamped while it is read, and
parsed only then: the last connection read does not wait for the first one's JSON.
"""

from __future__ import annotations

import asyncio
import errno
import select
import ssl
import time
from collections import deque
from collections.abc import Mapping
from typing import cast
from urllib.parse import urlsplit

from fairshare.load.transport import Receiver, TransportError
from fairshare.records import ErrorKind
from fairshare.wire.answer import WireError
from fairshare.wire.http1 import Http1Response, HttpError

# uvicorn closes idle connections after 5 s; one that is reused just then fails the request.
KEEPALIVE_S = 4.0
# Servers end an HTTP body right after the answer's last event. A connection on which that end
# has not come so soon is given up.
BODY_END_S = 0.1
READ_BUFFER_BYTES = 1 << 16  # what a connection may have read and not parsed yet
OPENED_AT_ONCE = 64  # servers have a queue of new connections, often of 128
_OUR_OWN_LIMITS = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}


class StreamTransport:
    """Connections to one server, reused last in first out; as many as are needed."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url.rstrip("/"))
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        self._address = self._host  # once connected: where that was, so that no name is looked up
        self._port = parts.port or (443 if self._tls else 80)
        self._authority = parts.netloc.rpartition("@")[2]
        self._prefix = parts.path
        self._heads: dict[tuple[str, int], tuple[Mapping[str, str], bytes]] = {}
        self._buffer = memoryview(bytearray(READ_BUFFER_BYTES))
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._arrived: deque[tuple[_Connection, int, bytes]] = deque()

    async def prepare(self, connections: int) -> None:
        """Open connections ahead, so that the first requests wait for none.

        A server that cannot be reached is no error yet: each request will say so itself.
        """
        while len(self._idle) < connections:
            opening = min(connections - len(self._idle), OPENED_AT_ONCE)
            opened = await asyncio.gather(
                *(self._connect() for _ in range(opening)), return_exceptions=True
            )
            found = [each for each in opened if isinstance(each, _Connection)]
            self._idle += found
            if len(found) < opening:
                return

    async def post(
        self, path: str, headers: Mapping[str, str], body: bytes, receiver: Receiver
    ) -> None:
        """Send one request and feed its answer to ``receiver`` until it ends.

        Raises:
            TransportError: the connection or HTTP itself failed.
            WireError: what the receiver raised.
        """
        connection = self._take_idle() or await self._connect()
        try:
            await connection.exchange(self._head(path, headers, len(body)), body, receiver)
        except BaseException:
            connection.drop()
            raise

    async def close(self) -> None:
        """Close all connections."""
        self._idle.clear()
        for connection in list(self._open):
            connection.drop()

    def _take_idle(self) -> _Connection | None:
        oldest_s = time.monotonic() - KEEPALIVE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since_s > oldest_s and connection.usable and connection.quiet:
                return connection
            connection.drop()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            transport, connection = await loop.create_connection(
                lambda: _Connection(self, loop),
                self._address,
                self._port,
                ssl=self._tls,
                server_hostname=self._host if self._tls else None,
            )
        except OSError as error:
            self._address = self._host
            raise _not_connected(error, self._host, self._port) from error
        self._address = transport.get_extra_info("peername")[0]
        return connection

    def _head(self, path: str, headers: Mapping[str, str], length: int) -> bytes:
        """The request's head; all but the length is made once."""
        key = (path, id(headers))
        if (known := self._heads.get(key)) is None:
            lines = [f"POST {self._prefix}{path} HTTP/1.1", f"Host: {self._authority}"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            if any("\r" in line or "\n" in line for line in lines):
                raise TransportError(ErrorKind.CLIENT, "a header or path with a line break")
            begun = "\r\n".join(lines).encode("latin-1") + b"\r\nContent-Length: "
            # The headers are kept as well: another object could get a dead one's id.
            known = self._heads[key] = headers, begun
        return b"%b%d\r\n\r\n" % (known[1], length)

    # What connections tell us.

    def opened(self, connection: _Connection) -> None:
        """A connection is there."""
        self._open.add(connection)

    def lost(self, connection: _Connection) -> None:
        """A connection is gone."""
        self._open.discard(connection)

    def free(self, connection: _Connection) -> None:
        """A connection has carried a whole answer and can carry another request."""
        self._idle.append(connection)

    @property
    def buffer(self) -> memoryview:
        """Where a connection reads to; each copies out what came before another reads."""
        return self._buffer

    def arrived(self, connection: _Connection, now_ns: int, data: bytes) -> None:
        """Bytes have come; they are parsed once all connections that are ready have been read."""
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._parse)
        self._arrived.append((connection, now_ns, data))

    def flush(self) -> None:
        """Parse what has arrived now: a connection that ends must not overtake its last bytes."""
        self._parse()

    def _parse(self) -> None:
        arrived = self._arrived
        while arrived:
            connection, now_ns, data = arrived.popleft()
            connection.parse(now_ns, data)


class _Connection(asyncio.BufferedProtocol):
    """One connection, with at most one request on it."""

    def __init__(self, owner: StreamTransport, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._receiver: Receiver | None = None
        self._response: Http1Response | None = None
        self._answered: asyncio.Future[None] | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        self._headers_told = False
        self.idle_since_s = time.monotonic()

    @property
    def usable(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def quiet(self) -> bool:
        """Whether the kernel knows nothing of it that we do not: an end, a reset, more bytes.

        A server may close after an answer without a word, and the loop learns it only in its next
        turn. Of TLS nothing can be told so: its records are not all of them data.
        """
        assert self._transport is not None  # noqa: S101  (it is usable)
        if self._transport.get_extra_info("sslcontext") is not None:
            return True
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket"), select.POLLIN | select.POLLRDHUP)
        return not poll.poll(0)

    async def exchange(self, head: bytes, body: bytes, receiver: Receiver) -> None:
        """Send a request and wait until its answer is complete.

        Raises:
            TransportError: the connection or HTTP failed.
            WireError: what the receiver raised.
        """
        assert self._transport is not None  # noqa: S101  (a connection is handed out once it is made)
        self._receiver = receiver
        self._response = Http1Response()
        self._headers_told = False
        self._answered = self._loop.create_future()
        self._transport.write(head + body)
        await self._answered

    def drop(self) -> None:
        """Close at once."""
        self._receiver = self._response = None
        if self._transport is not None:
            self._transport.abort()

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self._owner.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to: one buffer for all connections, since each empties it at once."""
        return self._owner.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Stamp what came, and leave it for later."""
        self._owner.arrived(self, time.monotonic_ns(), bytes(self._owner.buffer[:nbytes]))

    def eof_received(self) -> None:
        """The server sends no more; the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; whatever waits learns it."""
        now_ns = time.monotonic_ns()
        self._owner.flush()
        self._owner.lost(self)
        self._transport = None
        if self._end_timer is not None:
            self._end_timer.cancel()
        if self._response is None or self._receiver is None:
            return
        try:
            self._response.close()
            self._receiver.on_end(now_ns)
        except HttpError as error:
            self._fail(TransportError(ErrorKind.DISCONNECT, str(exc or error)))
        except WireError as error:
            self._fail(error)
        else:
            self._succeed()

    def parse(self, now_ns: int, data: bytes) -> None:
        """Take bytes that came at ``now_ns``."""
        response, receiver = self._response, self._receiver
        if response is None:
            self.drop()  # nobody asked
            return
        try:
            body = response.feed(data)
            if receiver is not None:
                self._hand_on(response, receiver, now_ns, body)
        except HttpError as error:
            self._break(response, receiver, now_ns, error)
        except Exception as error:  # a WireError, or a fault of the receiver's own: both are told
            self._fail(error)
        else:
            if response.complete:
                self._finish(response)

    def _break(
        self, response: Http1Response, receiver: Receiver | None, now_ns: int, error: HttpError
    ) -> None:
        """End an answer that stopped being HTTP, after what it said before."""
        try:
            if receiver is not None and error.body:
                self._hand_on(response, receiver, now_ns, error.body)
        except Exception as earlier:  # what was said first was wrong first
            self._fail(earlier)
        self._fail(TransportError(ErrorKind.BAD_RESPONSE, f"not HTTP: {error}"))

    def _hand_on(
        self, response: Http1Response, receiver: Receiver, now_ns: int, body: bytes
    ) -> None:
        if not self._headers_told:
            if response.status is None:
                return
            self._headers_told = True
            receiver.on_headers(
                now_ns, response.status, response.content_type, response.retry_after
            )
        if body and receiver.on_data(now_ns, body):
            self._succeed()
            if not response.complete:
                self._end_timer = self._loop.call_later(BODY_END_S, self.drop)
        elif response.complete:
            receiver.on_end(now_ns)
            self._succeed()

    def _finish(self, response: Http1Response) -> None:
        """HTTP's end of the answer is here: the connection is free, unless it must close."""
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None
        self._response = None
        if response.reusable and self.usable:
            self.idle_since_s = time.monotonic()
            self._owner.free(self)
        else:
            self.drop()

    def _succeed(self) -> None:
        self._receiver = None
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def _fail(self, error: Exception) -> None:
        self._receiver = None
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)
        self.drop()


def _not_connected(error: OSError, host: str, port: int) -> TransportError:
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in _OUR_OWN_LIMITS:
        text = f"a limit of this machine: cannot connect to {host}:{port}: {reason}"
        return TransportError(ErrorKind.CLIENT, text)
    return TransportError(ErrorKind.CONNECT, f"cannot connect to {host}:{port}: {reason}")
