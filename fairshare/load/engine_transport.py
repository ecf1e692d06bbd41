"""The transport without HTTP: straight to the engine's client, which stamps its own outputs.

The other end is ``fairshare.vllm_plugins.request_socket``, in the engine's process. What it sends
is what the server would stream, each event with the time at which the engine gave it, so that
neither HTTP nor this process's event loop is in any figure.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping

from fairshare.load.connection import Connection, Pool
from fairshare.load.sockets import connected
from fairshare.load.transport import Receiver, TransportError
from fairshare.records import ErrorKind

URL_SCHEME = "unix:"
_REQUEST_HEAD = struct.Struct(">I")  # length
_EVENT_HEAD = struct.Struct(">QI")  # time of the output (monotonic, ns), length


class EngineTransport:
    """Connections to one engine's socket, reused last in first out; as many as are needed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._pool = Pool(self._connect)

    async def prepare(self, connections: int) -> None:
        """Open connections ahead; an engine that cannot be reached is told by each request."""
        await self._pool.prepare(connections)

    async def post(
        self, path: str, headers: Mapping[str, str], body: bytes, receiver: Receiver
    ) -> None:
        """Send one request and feed its events to ``receiver``; there are no headers to tell.

        Raises:
            TransportError: the engine's process cannot be reached, or is gone.
            WireError: what the receiver raised.
        """
        del path, headers  # HTTP's
        await self._pool.exchange(_REQUEST_HEAD.pack(len(body)) + body, receiver)

    async def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    async def _connect(self) -> Connection:
        try:
            sock = await connected((socket.AF_UNIX, self._path))
        except OSError as error:
            reason = error.strerror or str(error)
            text = f"cannot connect to the engine's socket {self._path}: {reason}"
            raise TransportError(ErrorKind.CONNECT, text) from error
        return _EngineConnection(self._pool, sock)


class _EngineConnection(Connection):
    """Events with their times. Dropped, it has the engine abort what it was doing for us."""

    def __init__(self, pool: Pool, sock: socket.socket) -> None:
        super().__init__(pool, sock)
        self._received = bytearray()

    def parse(self, now_ns: int, data: bytes) -> None:
        """Hand on all events that are whole."""
        del now_ns  # the engine's times count
        received = self._received
        received += data
        begin = _EVENT_HEAD.size
        while len(received) >= begin:
            given_ns, length = _EVENT_HEAD.unpack_from(received)
            if len(received) < begin + length:
                return
            event = bytes(received[begin : begin + length])
            del received[: begin + length]
            self._hand_on(given_ns, event)

    def ended(self, now_ns: int, error: OSError | None) -> None:
        """The engine's process closed, or died."""
        del now_ns
        text = str(error) if error else "the engine's process closed the connection"
        self.fail(TransportError(ErrorKind.DISCONNECT, text))

    def _hand_on(self, given_ns: int, event: bytes) -> None:
        if self.receiver is None:
            self.drop()  # nobody asked
            return
        try:
            done = self.receiver.on_data(given_ns, event)
        except Exception as error:  # a WireError, or a fault of the receiver's own: both are told
            self.fail(error)
            return
        if done:
            self.succeed()
            self.pool.free(self)
