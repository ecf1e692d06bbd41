"""Connected sockets for the event loop, plain or with TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeAlias

Address: TypeAlias = tuple[socket.AddressFamily, Any]  # a family and an address of it


async def addresses_of(host: str, port: int) -> list[Address]:
    """Where a TCP server may be.

    Raises:
        OSError: there is no such host.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


async def connected(address: Address) -> socket.socket:
    """A connected socket that does not block.

    Raises:
        OSError: nobody is there, or a limit of this machine.
    """
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family is not socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


async def with_tls(sock: socket.socket, tls: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    """The same connection, after the handshake.

    Raises:
        OSError: the other end is not whom it says, or speaks no TLS.
    """
    wrapped = tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    loop = asyncio.get_running_loop()
    try:
        while True:
            try:
                wrapped.do_handshake()
            except ssl.SSLWantReadError:
                await _ready(wrapped, loop.add_reader, loop.remove_reader)
            except ssl.SSLWantWriteError:
                await _ready(wrapped, loop.add_writer, loop.remove_writer)
            else:
                return wrapped
    except BaseException:
        wrapped.close()
        raise


async def _ready(
    sock: socket.socket, add: Callable[..., None], remove: Callable[..., bool]
) -> None:
    ready = asyncio.get_running_loop().create_future()
    add(sock.fileno(), lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        remove(sock.fileno())
