"""Many sockets behind one descriptor: all that are ready are read and stamped, then parsed.

An epoll is itself a descriptor that an event loop can watch. So the loop calls once for whatever
has arrived, instead of once for each socket, and the last socket read does not wait for what the
first one said to be parsed.
"""

from __future__ import annotations

import asyncio
import select
import ssl
import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

from fairshare.load.rest import Rest

# At least what one record of TLS holds: what OpenSSL had read and not given, epoll would not tell.
READ_BYTES = 16 << 10
_NOT_YET = (BlockingIOError, InterruptedError, ssl.SSLWantReadError)
_READABLE, _WRITABLE = select.EPOLLIN, select.EPOLLOUT

Receive: TypeAlias = Callable[[int], bytes]


class Watched(Protocol):
    """One socket's owner."""

    def parse(self, now_ns: int, data: bytes) -> None:
        """Take bytes that came at ``now_ns``."""
        ...

    def lost(self, now_ns: int, error: OSError | None) -> None:
        """The other end has closed, or the connection broke."""
        ...

    def write_more(self) -> None:
        """The socket takes bytes again."""
        ...


class Poller:
    """Watches sockets for their owners within the running event loop, until :meth:`close`."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched: dict[int, tuple[Receive, Watched]] = {}
        self._rest = Rest()

    def watch(self, descriptor: int, receive: Receive, owner: Watched) -> None:
        """Tell ``owner`` of what ``receive`` (the socket's ``recv``) gives from now on."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._epoll.fileno(), self.drain)
        self._epoll.register(descriptor, _READABLE)
        self._watched[descriptor] = receive, owner

    def write_too(self, descriptor: int, wanted: bool) -> None:
        """Tell its owner also when the socket takes bytes again, or no more."""
        if self._epoll is not None:
            self._epoll.modify(descriptor, _READABLE | (_WRITABLE if wanted else 0))

    def forget(self, descriptor: int) -> None:
        """Watch it no more; it must still be open."""
        if self._watched.pop(descriptor, None) is not None and self._epoll is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Watch nothing any more."""
        self._watched.clear()
        if self._epoll is not None and self._loop is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def drain(self) -> None:
        """Read every socket that is ready once, stamp what came, then have all of it parsed."""
        assert self._epoll is not None  # noqa: S101  (it is what woke us)
        looked_s = self._rest.take()
        clock, watched = time.monotonic_ns, self._watched
        arrived: list[tuple[Watched, int, bytes]] = []
        for descriptor, events in self._epoll.poll(0):
            receive, owner = watched[descriptor]
            if events != _READABLE and events & _WRITABLE:
                owner.write_more()
                if events == _WRITABLE:
                    continue
            try:
                data = receive(READ_BYTES)
            except _NOT_YET:
                continue
            except OSError as error:
                owner.lost(clock(), error)
                continue
            if data:
                arrived.append((owner, clock(), data))
            else:
                owner.lost(clock(), None)
        self._rest.earn(looked_s, len(arrived))
        for owner, now_ns, data in arrived:
            owner.parse(now_ns, data)
