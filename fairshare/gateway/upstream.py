"""Connections to the server: one request at a time each, kept open between requests.

What comes is handed on in the same turn of the event loop in which it was read. A request is sent
once: nothing is ever sent again, since the server may have begun with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, cast
from urllib.parse import urlsplit

from fairshare.wire.answer import WireError
from fairshare.wire.http1 import Http1Response, HttpError

# uvicorn closes idle connections after 5 s; one that is reused just then fails the request.
KEEPALIVE_S = 4.0
MAX_IDLE = 256
MAX_ANSWER_BYTES = 16 << 20


class UpstreamError(Exception):
    """The server cannot be reached, or its answer ended before its end; the text says which."""


class Receiver(Protocol):
    """Gets one answer, piece by piece, then exactly one of ``ended`` and ``failed``."""

    def head(self, response: Http1Response) -> None:
        """The status and the headers are there; ``data`` is called next."""
        ...

    def data(self, body: bytes) -> None:
        """A part of the body, or the nothing that came with its head.

        Raises:
            WireError: it cannot be handed on.
        """
        ...

    def ended(self) -> None:
        """That was all of it."""
        ...

    def failed(self, error: Exception) -> None:
        """No more will come."""
        ...


class Connection(asyncio.Protocol):
    """One connection to the server."""

    def __init__(self, pool: list[Connection]) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._response = Http1Response()
        self._receiver: Receiver | None = None
        self._told_head = False
        self.heard_s = time.monotonic()
        """When it last said anything."""

    def send(self, request: bytes, receiver: Receiver) -> None:
        """Send a request; its answer goes to ``receiver``."""
        assert self._transport is not None  # noqa: S101  (a connection is handed out once it is made)
        self._response = Http1Response()
        self._receiver = receiver
        self._told_head = False
        self.heard_s = time.monotonic()
        self._transport.write(request)

    def drop(self) -> None:
        """Close at once; the server aborts what it was doing for us."""
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()

    def pause(self) -> None:
        """Read no more for a while."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None:
            self._transport.resume_reading()

    @property
    def usable(self) -> bool:
        """Whether it was used lately, and the kernel knows of no end, reset or stray bytes."""
        if self._transport is None or self._transport.is_closing():
            return False
        if time.monotonic() - self.heard_s > KEEPALIVE_S:
            return False
        if self._transport.get_extra_info("sslcontext") is not None:
            return True  # records of TLS are not all of them data
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket"), select.POLLIN | select.POLLRDHUP)
        return not poll.poll(0)

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand on what came."""
        receiver, response = self._receiver, self._response
        if receiver is None:
            self.drop()  # nobody asked
            return
        self.heard_s = time.monotonic()
        try:
            body = response.feed(data)
            self._hand_on(response, receiver, body)
        except HttpError as error:
            with contextlib.suppress(WireError):
                self._hand_on(response, receiver, error.body)
            self._fail(UpstreamError(f"the server's answer is not HTTP: {error}"))
        except WireError as error:
            self._fail(UpstreamError(f"the server's answer cannot be read: {error}"))
        else:
            if response.complete:
                self._finish(response, receiver)

    def _hand_on(self, response: Http1Response, receiver: Receiver, body: bytes) -> None:
        if not self._told_head:
            if response.status is None:
                return
            self._told_head = True
            receiver.head(response)
            receiver.data(body)
        elif body:
            receiver.data(body)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; whoever waits learns it."""
        self._transport = None
        receiver = self._receiver
        if receiver is None:
            return
        try:
            self._response.close()
        except HttpError as error:
            self._fail(UpstreamError(f"the server broke off: {exc or error}"))
        else:
            self._receiver = None
            receiver.ended()

    def _finish(self, response: Http1Response, receiver: Receiver) -> None:
        self._receiver = None
        if response.reusable and len(self._pool) < MAX_IDLE:
            self.resume()
            self._pool.append(self)
        else:
            self.drop()
        receiver.ended()

    def _fail(self, error: UpstreamError) -> None:
        receiver, self._receiver = self._receiver, None
        self.drop()
        if receiver is not None:
            receiver.failed(error)


@dataclass(slots=True)
class Answer:
    """A whole answer."""

    status: int
    fields: dict[bytes, bytes]
    body: bytes


class _Whole:
    """Collects a whole answer."""

    def __init__(self, done: asyncio.Future[Answer]) -> None:
        self._done = done
        self._answer = Answer(0, {}, b"")
        self._pieces: list[bytes] = []
        self._size = 0

    def head(self, response: Http1Response) -> None:
        self._answer.status, self._answer.fields = response.status or 0, response.fields

    def data(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAX_ANSWER_BYTES:
            raise WireError(f"more than {MAX_ANSWER_BYTES} bytes")
        self._pieces.append(body)

    def ended(self) -> None:
        self._answer.body = b"".join(self._pieces)
        if not self._done.done():
            self._done.set_result(self._answer)

    def failed(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)


class Upstream:
    """The server behind the gateway."""

    def __init__(self, base_url: str, *, connect_timeout_s: float) -> None:
        parts = urlsplit(base_url)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._authority = parts.netloc
        self._prefix = parts.path.rstrip("/")
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[Connection] = []

    async def connect(self) -> Connection:
        """A connection on which a request can be sent.

        Raises:
            UpstreamError: there is none to be had.
        """
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
            connection.drop()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._idle),
                    self._host,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except TimeoutError:
            reason = f"no connection within {self._connect_timeout_s:g} s"
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        else:
            return connection
        raise UpstreamError(f"cannot connect to the server at {self._authority}: {reason}")

    def request(
        self, method: str, target: str, headers: Iterable[tuple[str, str]], body: bytes
    ) -> bytes:
        """The bytes of a request."""
        lines = [f"{method} {self._prefix}{target} HTTP/1.1", f"Host: {self._authority}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body or method != "GET":
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join(lines).encode("utf-8", "surrogateescape")
        return head + b"\r\n\r\n" + body

    async def get(self, target: str, headers: Iterable[tuple[str, str]], limit_s: float) -> Answer:
        """A whole answer to a GET.

        Raises:
            UpstreamError: there is none, or not in time.
        """
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        connection = None
        try:
            async with asyncio.timeout(limit_s):
                connection = await self.connect()
                connection.send(self.request("GET", target, headers, b""), _Whole(done))
                return await done
        except TimeoutError:
            raise UpstreamError(f"no answer to {target} within {limit_s:g} s") from None
        finally:
            if connection is not None and not (done.done() and not done.cancelled()):
                connection.drop()

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().drop()
