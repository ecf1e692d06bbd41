"""The transport on sockets and a reader of our own: stamp first, parse afterwards."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from fairshare.load.connection import Connection, Pool
from fairshare.load.sockets import Address, addresses_of, connected, with_tls
from fairshare.load.transport import Receiver, TransportError
from fairshare.records import ErrorKind
from fairshare.wire.answer import WireError
from fairshare.wire.http1 import Http1Response, HttpError

# uvicorn closes idle connections after 5 s; one that is reused just then fails the request.
KEEPALIVE_S = 4.0
# Servers end an HTTP body right after the answer's last event. A connection on which that end
# has not come so soon is given up.
BODY_END_S = 0.1
_OUR_OWN_LIMITS = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}


class StreamTransport:
    """Connections to one server, reused last in first out; as many as are needed."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url.rstrip("/"))
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._known: list[Address] = []  # where that is, so that no name is looked up again
        self._authority = parts.netloc.rpartition("@")[2]
        self._prefix = parts.path
        self._heads: dict[tuple[str, int], tuple[Mapping[str, str], bytes]] = {}
        self.pool = Pool(self._connect, KEEPALIVE_S)

    async def prepare(self, connections: int) -> None:
        """Open connections ahead, so that the first requests wait for none."""
        await self.pool.prepare(connections)

    async def post(
        self, path: str, headers: Mapping[str, str], body: bytes, receiver: Receiver
    ) -> None:
        """Send one request and feed its answer to ``receiver`` until it ends.

        Raises:
            TransportError: the connection or HTTP itself failed.
            WireError: what the receiver raised.
        """
        await self.pool.exchange(self._head(path, headers, len(body)) + body, receiver)

    async def close(self) -> None:
        """Close all connections."""
        self.pool.close()

    async def _connect(self) -> Connection:
        try:
            sock = await self._first_that_answers(
                self._known or await addresses_of(self._host, self._port)
            )
            if self._tls is not None:
                sock = await with_tls(sock, self._tls, self._host)
        except OSError as error:
            self._known = []
            raise _not_connected(error, self._host, self._port) from error
        return HttpConnection(self.pool, sock)

    async def _first_that_answers(self, addresses: list[Address]) -> socket.socket:
        last = OSError(errno.EADDRNOTAVAIL, "it has no address")
        for address in addresses:
            try:
                sock = await connected(address)
            except OSError as error:
                last = error
            else:
                self._known = [address]
                return sock
        raise last

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


class HttpConnection(Connection):
    """HTTP/1.1: one answer after the other."""

    def __init__(self, pool: Pool, sock: socket.socket) -> None:
        super().__init__(pool, sock)
        self._response: Http1Response | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        self._headers_told = False

    async def exchange(self, request: bytes, receiver: Receiver) -> None:
        """Send a request and wait until its answer is complete.

        Raises:
            TransportError: the connection or HTTP failed.
            WireError: what the receiver raised.
        """
        self._response = Http1Response()
        self._headers_told = False
        await super().exchange(request, receiver)

    def drop(self) -> None:
        """Close at once."""
        self._response = None
        super().drop()

    def parse(self, now_ns: int, data: bytes) -> None:
        """Take bytes that came at ``now_ns``."""
        response, receiver = self._response, self.receiver
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
            self.fail(error)
        else:
            if response.complete:
                self._finish(response)

    def ended(self, now_ns: int, error: OSError | None) -> None:
        """The connection is gone; an answer may end so."""
        self._stop_timer()
        response, receiver = self._response, self.receiver
        if response is None or receiver is None:
            return
        try:
            response.close()
            receiver.on_end(now_ns)
        except HttpError as broke:
            self.fail(TransportError(ErrorKind.DISCONNECT, str(error or broke)))
        except WireError as wrong:
            self.fail(wrong)
        else:
            self.succeed()

    def _break(
        self, response: Http1Response, receiver: Receiver | None, now_ns: int, error: HttpError
    ) -> None:
        """End an answer that stopped being HTTP, after what it said before."""
        try:
            if receiver is not None and error.body:
                self._hand_on(response, receiver, now_ns, error.body)
        except Exception as earlier:  # what was said first was wrong first
            self.fail(earlier)
        self.fail(TransportError(ErrorKind.BAD_RESPONSE, f"not HTTP: {error}"))

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
            self.succeed()
            if not response.complete:
                loop = asyncio.get_running_loop()
                self._end_timer = loop.call_later(BODY_END_S, self.drop)
        elif response.complete:
            receiver.on_end(now_ns)
            self.succeed()

    def _finish(self, response: Http1Response) -> None:
        """HTTP's end of the answer is here: the connection is free, unless it must close."""
        self._stop_timer()
        self._response = None
        if response.reusable:
            self.pool.free(self)
        else:
            self.drop()

    def _stop_timer(self) -> None:
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None


def _not_connected(error: OSError, host: str, port: int) -> TransportError:
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno in _OUR_OWN_LIMITS:
        text = f"a limit of this machine: cannot connect to {host}:{port}: {reason}"
        return TransportError(ErrorKind.CLIENT, text)
    return TransportError(ErrorKind.CONNECT, f"cannot connect to {host}:{port}: {reason}")
