"""The transport without HTTP: straight to the engine's client, which stamps its own outputs.

The other end is ``fairshare.vllm_plugins.request_socket``, in the engine's process. What it sends
is what the server would stream, each event with the time at which the engine gave it, so that
neither HTTP nor this process's event loop is in any figure.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from typing import cast

from fairshare.load.transport import Receiver, TransportError
from fairshare.records import ErrorKind

URL_SCHEME = "unix:"
_REQUEST_HEAD = struct.Struct(">I")  # length
_EVENT_HEAD = struct.Struct(">QI")  # time of the output (monotonic, ns), length
OPENED_AT_ONCE = 64  # the socket has a queue of new connections


class EngineTransport:
    """Connections to one engine's socket, reused last in first out; as many as are needed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()

    async def prepare(self, connections: int) -> None:
        """Open connections ahead; an engine that cannot be reached is told by each request."""
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
        """Send one request and feed its events to ``receiver``; there are no headers to tell.

        Raises:
            TransportError: the engine's process cannot be reached, or is gone.
            WireError: what the receiver raised.
        """
        del path, headers  # HTTP's
        connection = self._take_idle() or await self._connect()
        try:
            await connection.exchange(body, receiver)
        except BaseException:
            connection.drop()
            raise
        self._idle.append(connection)

    async def close(self) -> None:
        """Close all connections."""
        self._idle.clear()
        for connection in list(self._open):
            connection.drop()

    def _take_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection in self._open:
                return connection
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_unix_connection(
                lambda: _Connection(self._open), self._path
            )
        except OSError as error:
            reason = error.strerror or str(error)
            text = f"cannot connect to the engine's socket {self._path}: {reason}"
            raise TransportError(ErrorKind.CONNECT, text) from error
        return connection


class _Connection(asyncio.Protocol):
    """One connection, with at most one request on it."""

    def __init__(self, opened: set[_Connection]) -> None:
        self._opened = opened
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._receiver: Receiver | None = None
        self._answered: asyncio.Future[None] | None = None

    async def exchange(self, body: bytes, receiver: Receiver) -> None:
        """Send a request and wait until its answer is complete.

        Raises:
            TransportError: the connection is lost.
            WireError: what the receiver raised.
        """
        if self._transport is None:
            raise _lost(None)
        self._receiver = receiver
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(_REQUEST_HEAD.pack(len(body)) + body)
        await self._answered

    def drop(self) -> None:
        """Close at once; the engine aborts what it was doing for us."""
        self._receiver = None
        self._opened.discard(self)
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast("asyncio.Transport", transport)
        self._opened.add(self)

    def data_received(self, data: bytes) -> None:
        """Hand on all events that are whole."""
        received = self._received
        received += data
        begin = _EVENT_HEAD.size
        while len(received) >= begin:
            now_ns, length = _EVENT_HEAD.unpack_from(received)
            if len(received) < begin + length:
                return
            event = bytes(received[begin : begin + length])
            del received[: begin + length]
            self._hand_on(now_ns, event)

    def connection_lost(self, exc: Exception | None) -> None:
        """The engine's process closed, or died."""
        self._transport = None
        self._opened.discard(self)
        self._finish(_lost(exc))

    def _hand_on(self, now_ns: int, event: bytes) -> None:
        if self._receiver is None:
            self.drop()  # nobody asked
            return
        try:
            if self._receiver.on_data(now_ns, event):
                self._finish(None)
        except Exception as error:  # a WireError, or a fault of the receiver's own: both are told
            self._finish(error)

    def _finish(self, error: Exception | None) -> None:
        self._receiver = None
        if self._answered is None or self._answered.done():
            return
        if error is None:
            self._answered.set_result(None)
        else:
            self._answered.set_exception(error)


def _lost(exc: Exception | None) -> TransportError:
    text = str(exc) if exc else "the engine's process closed the connection"
    return TransportError(ErrorKind.DISCONNECT, text)
