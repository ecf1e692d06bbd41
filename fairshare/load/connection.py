"""One connection with at most one request on it, and the pool that keeps those that are idle."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

from fairshare.load.poller import Poller
from fairshare.load.transport import Receiver

OPENED_AT_ONCE = 64  # servers have a queue of new connections, often of 128


class Connection(ABC):
    """A connected socket. A subclass knows what travels on it.

    ``receiver`` is told of the answer in progress; None means that nobody waits for one.
    """

    def __init__(self, pool: Pool, sock: socket.socket) -> None:
        self.receiver: Receiver | None = None
        self.pool = pool
        self.is_open = True
        self.idle_since_s = time.monotonic()
        self._sock = sock
        self._unsent = memoryview(b"")
        self._send_error: OSError | None = None
        self._answered: asyncio.Future[None] | None = None
        pool.poller.watch(sock.fileno(), sock.recv, self)
        pool.opened(self)

    async def exchange(self, request: bytes, receiver: Receiver) -> None:
        """Send a request and wait until its answer is complete.

        Raises:
            TransportError: the connection failed, or what came is not the protocol.
            WireError: what the receiver raised.
        """
        self.receiver = receiver
        self._answered = asyncio.get_running_loop().create_future()
        self._send(memoryview(request))
        await self._answered

    @abstractmethod
    def parse(self, now_ns: int, data: bytes) -> None:
        """Take bytes that came at ``now_ns``."""

    @abstractmethod
    def ended(self, now_ns: int, error: OSError | None) -> None:
        """The connection is gone: whoever waits learns it."""

    def lost(self, now_ns: int, error: OSError | None) -> None:
        """The other end has closed, or the connection broke."""
        self._close()
        self.ended(now_ns, error or self._send_error)

    def drop(self) -> None:
        """Close at once."""
        self.receiver = None
        self._close()

    def succeed(self) -> None:
        """The answer is complete."""
        self.receiver = None
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def fail(self, error: Exception) -> None:
        """There is no answer, or only the beginning of one: close, and tell who waits."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)
        self.drop()

    def quiet(self) -> bool:
        """Whether it is ready for a request, and the kernel knows nothing of it that we do not.

        A server may close after an answer without a word, and the loop learns it only in its next
        turn. Of TLS nothing can be told so: its records are not all of them data.
        """
        if not self.is_open or self._unsent:
            return False
        if isinstance(self._sock, ssl.SSLSocket):
            return True
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def write_more(self) -> None:
        """The socket takes bytes again."""
        self._send(self._unsent)

    def _send(self, data: memoryview) -> None:
        """Send what the socket takes now, the rest later.

        Of an end that shows here the reader learns too, after whatever the server said before it.
        """
        sent = 0
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            self._send_error, sent = error, len(data)
        had_unsent, self._unsent = bool(self._unsent), data[sent:]
        if bool(self._unsent) != had_unsent:
            self.pool.poller.write_too(self._sock.fileno(), wanted=bool(self._unsent))

    def _close(self) -> None:
        if self.is_open:
            self.is_open = False
            self.pool.closed(self)
            self.pool.poller.forget(self._sock.fileno())
            self._sock.close()


class Pool:
    """Connections to one server, reused last in first out; as many as are needed.

    One that has been idle for ``keepalive_s`` is not used again.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], keepalive_s: float = math.inf
    ) -> None:
        self.poller = Poller()
        self._connect = connect
        self._keepalive_s = keepalive_s
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()

    async def prepare(self, connections: int) -> None:
        """Open connections ahead, so that the first requests wait for none.

        A server that cannot be reached is no error yet: each request will say so itself.
        """
        while len(self._idle) < connections:
            opening = min(connections - len(self._idle), OPENED_AT_ONCE)
            opened = await asyncio.gather(
                *(self._connect() for _ in range(opening)), return_exceptions=True
            )
            found = [each for each in opened if isinstance(each, Connection)]
            self._idle += found
            if len(found) < opening:
                return

    async def exchange(self, request: bytes, receiver: Receiver) -> None:
        """Send a request on an idle connection, else on a new one, and wait for its answer.

        Raises:
            TransportError: the connection failed, or what came is not the protocol.
            WireError: what the receiver raised.
        """
        connection = self._take_idle() or await self._connect()
        try:
            await connection.exchange(request, receiver)
        except BaseException:
            connection.drop()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._idle.clear()
        for connection in list(self._open):
            connection.drop()
        self.poller.close()

    # What connections tell us.

    def opened(self, connection: Connection) -> None:
        """A connection is there."""
        self._open.add(connection)

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self._open.discard(connection)

    def free(self, connection: Connection) -> None:
        """A connection has carried a whole answer and can carry another request."""
        connection.idle_since_s = time.monotonic()
        self._idle.append(connection)

    def _take_idle(self) -> Connection | None:
        oldest_s = time.monotonic() - self._keepalive_s
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since_s > oldest_s and connection.quiet():
                return connection
            connection.drop()
        return None
