"""What aiohttp's connections receive, stamped as it comes, and handed on without waking a task."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp

from fairshare.load.rest import Rest
from fairshare.load.transport import Receiver


class Look:
    """What all connections have received since the last look: first stamped, then parsed."""

    def __init__(self) -> None:
        self._arrived: list[tuple[Tap, int, bytes]] = []
        self._rest = Rest()
        self._looked_s = 0.0

    def note(self, tap: Tap, data: bytes) -> None:
        """Stamp what has just come; it is parsed when every socket that is ready was read."""
        if not self._arrived:
            # A timer that is due comes after the sockets that are ready; ``call_soon`` before them.
            asyncio.get_running_loop().call_later(0, self._end)
        self._arrived.append((tap, time.monotonic_ns(), data))

    def parse(self) -> int:
        """Have parsed what was noted; return how much that was."""
        arrived, self._arrived = self._arrived, []
        for tap, now_ns, data in arrived:
            tap.parse(now_ns, data)
        return len(arrived)

    def _end(self) -> None:
        self._rest.earn(self._looked_s, self.parse())
        self._looked_s = self._rest.take()


class Tap(asyncio.Protocol):
    """Stands between a connection and aiohttp's protocol of it, for as long as it is open.

    aiohttp parses HTTP; what its reader then holds of the body goes on in the same call. To wait
    for it in a task costs more than that. ``arrived_ns`` is when the last bytes came.
    """

    def __init__(self, inner: Any, look: Look) -> None:
        self.arrived_ns = time.monotonic_ns()
        self._inner = inner
        self._look = look
        self._content: aiohttp.StreamReader | None = None
        self._receiver: Receiver | None = None
        self._ended: asyncio.Future[None] | None = None
        self._taken = 0  # bytes of the body

    async def read(self, content: aiohttp.StreamReader, receiver: Receiver) -> None:
        """Hand ``content`` on until the answer is complete or its body has ended.

        Raises:
            Exception: what ended the body too soon, or what the receiver raised.
        """
        self._content, self._receiver, self._taken = content, receiver, 0
        self._ended = asyncio.get_running_loop().create_future()
        try:
            self._hand_on(self.arrived_ns)  # what came with the headers
            await self._ended
        finally:
            self._content = self._receiver = None

    def parse(self, now_ns: int, data: bytes) -> None:
        """Take bytes that came at ``now_ns``."""
        self.arrived_ns = now_ns
        self._inner.data_received(data)
        self._hand_on(now_ns)

    def _hand_on(self, now_ns: int) -> None:
        content, receiver, ended = self._content, self._receiver, self._ended
        if content is None or receiver is None or ended is None or ended.done():
            return
        try:
            while content.total_bytes > self._taken:
                data = content.read_nowait()
                self._taken += len(data)
                if receiver.on_data(now_ns, data):
                    ended.set_result(None)
                    return
            if content.is_eof():
                receiver.on_end(now_ns)
                ended.set_result(None)
            elif broke := content.exception() or self._inner.exception():
                # Of what is no HTTP the reader is not told, only the protocol.
                ended.set_exception(broke)
        except Exception as error:  # of HTTP, or the receiver's: whoever waits is told
            ended.set_exception(error)

    # What the connection tells a protocol.

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._look.note(self, data)

    def eof_received(self) -> bool | None:
        """The other end sends no more."""
        self._look.parse()
        ended: bool | None = self._inner.eof_received()
        return ended

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._look.parse()
        self._inner.connection_lost(exc)
        self._hand_on(time.monotonic_ns())

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """The socket takes bytes again."""
        self._inner.resume_writing()
