"""The transport on aiohttp: raw reads, stamped on arrival."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from fairshare.load.tap import Look, Tap
from fairshare.load.transport import Receiver, TransportError
from fairshare.records import ErrorKind

# uvicorn closes idle connections after 5 s; one that is reused just then fails the request.
KEEPALIVE_S = 4.0
READ_BUFFER_BYTES = 1 << 16
READ_BYTES = 1 << 14  # at a time, from the kernel: an answer of 64 tokens is about as long
# Servers end an HTTP body right after the answer's last event. A connection on which that end
# has not come so soon is given up rather than delaying the client's next request.
BODY_END_S = 0.1
_OUR_OWN_LIMITS = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}


class AiohttpTransport:
    """One session for one server: no connection limit, no proxies, cookies or decompression."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._urls: dict[str, URL] = {}
        self._look = Look()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
        )

    async def post(
        self, path: str, headers: Mapping[str, str], body: bytes, receiver: Receiver
    ) -> None:
        """Send one request and feed its answer to ``receiver`` until it ends.

        Raises:
            TransportError: the connection or HTTP itself failed.
            WireError: what the receiver raised.
        """
        try:
            response = await self._session.post(
                self._url(path), data=body, headers=headers, allow_redirects=False
            )
            said = response.headers
            try:
                tap = self._tap_of(response)
                receiver.on_headers(
                    tap.arrived_ns if tap else time.monotonic_ns(),
                    response.status,
                    said.get("Content-Type", ""),
                    said.get("Retry-After", ""),
                )
                await (tap.read if tap else _read)(response.content, receiver)
                await _body_end(response.content)
            except BaseException:
                response.close()
                raise
            response.release()  # closes the connection too if the body has not ended
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            raise _explained(error) from error

    def _url(self, path: str) -> URL:
        """The URL of a path, parsed once."""
        if (url := self._urls.get(path)) is None:
            url = self._urls[path] = URL(self._base_url + path)
        return url

    def _tap_of(self, response: aiohttp.ClientResponse) -> Tap | None:
        """The tap of the connection that the answer comes by; None if it is here to the end."""
        connection = response.connection
        transport: Any = None if connection is None else connection.transport
        if transport is None:
            return None
        if isinstance(tap := transport.get_protocol(), Tap):
            return tap
        if hasattr(transport, "max_size"):  # not with TLS, and not with every event loop
            # Have asyncio ask the kernel for no more at a time than is read here. It asks for
            # 256 KiB, for which malloc maps memory anew with every read, and unmaps it again.
            transport.max_size = READ_BYTES
        tap = Tap(transport.get_protocol(), self._look)
        transport.set_protocol(tap)
        return tap

    async def prepare(self, connections: int) -> None:
        """Nothing: aiohttp opens connections with requests, so the warm-up does."""

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


async def _read(content: aiohttp.StreamReader, receiver: Receiver) -> None:
    """The rest of an answer whose connection is already given back: all of it is here."""
    now = time.monotonic_ns
    while data := await content.readany():
        if receiver.on_data(now(), data):
            return
    receiver.on_end(now())


async def _body_end(content: aiohttp.StreamReader) -> None:
    if content.at_eof():
        return
    try:
        async with asyncio.timeout(BODY_END_S):
            await content.readany()
    except (TimeoutError, aiohttp.ClientError, HttpProcessingError, OSError):
        return  # the answer is complete; only the connection is lost


# Which kind of failure an exception of aiohttp is. The first match counts: subclasses come first.
_KINDS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], ErrorKind, str], ...] = (
    (aiohttp.InvalidURL, ErrorKind.CLIENT, "invalid URL: "),
    ((aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError), ErrorKind.CONNECT, ""),
    (aiohttp.ClientPayloadError, ErrorKind.DISCONNECT, "the answer broke off: "),
    ((HttpProcessingError, aiohttp.ClientResponseError), ErrorKind.BAD_RESPONSE, "not HTTP: "),
    ((aiohttp.ClientConnectionError, OSError), ErrorKind.DISCONNECT, ""),
)


def _explained(error: Exception) -> TransportError:
    text = str(error) or type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = error.os_error.strerror or str(error.os_error)
        text = f"cannot connect to {error.host}:{error.port}: {reason}"
    if getattr(error, "errno", None) in _OUR_OWN_LIMITS:
        return TransportError(ErrorKind.CLIENT, f"a limit of this machine: {text}")
    for types, kind, prefix in _KINDS:
        if isinstance(error, types):
            return TransportError(kind, prefix + text)
    return TransportError(ErrorKind.CLIENT, f"{type(error).__name__}: {text}")
