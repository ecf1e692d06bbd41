"""The tap between asyncio's connections and aiohttp's protocol of them."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

from fairshare.load.tap import Look, Tap

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


class Heard:
    """Notes what came, when it was stamped and when it was told."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.stamped_ns: list[int] = []
        self.told_ns: list[int] = []
        self.ended_ns: int | None = None

    def on_headers(
        self, now_ns: int, status: int, content_type: str, retry_after: str = ""
    ) -> None:
        """Not told by a tap."""

    def on_data(self, now_ns: int, data: bytes) -> bool:
        """Note it."""
        self.data.append(data)
        self.stamped_ns.append(now_ns)
        self.told_ns.append(time.monotonic_ns())
        return data == b"last"

    def on_end(self, now_ns: int) -> None:
        """Note it."""
        self.ended_ns = now_ns


class Closable(asyncio.Transport):
    """A connection that goes nowhere."""

    def close(self) -> None:
        """Nothing to close."""


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def begun(look: Look) -> tuple[Tap, aiohttp.StreamReader]:
    """A tap whose connection has received the head of an answer, and the answer's body."""
    handler = ResponseHandler(asyncio.get_running_loop())
    handler.connection_made(Closable())
    handler.set_response_params()
    tap = Tap(handler, look)
    tap.parse(1, HEAD)
    _, content = await handler.read()
    return tap, content


async def reading(look: Look) -> tuple[Tap, Heard, asyncio.Task[None]]:
    """The same, and a task that waits for the body."""
    tap, content = await begun(look)
    heard = Heard()
    task = asyncio.create_task(tap.read(content, heard))
    await asyncio.sleep(0)
    return tap, heard, task


async def test_all_that_is_ready_is_stamped_before_any_of_it_is_parsed() -> None:
    """No connection's stamp waits for what another one said to be parsed."""
    look = Look()
    (one, first, _), (two, second, waiting) = await reading(look), await reading(look)
    one.data_received(chunk(b"a") + END)
    two.data_received(chunk(b"last"))
    assert not first.data
    await waiting
    assert (first.data, second.data) == ([b"a"], [b"last"])
    assert max(first.stamped_ns + second.stamped_ns) <= min(first.told_ns + second.told_ns)
    assert first.ended_ns == first.stamped_ns[0]


async def test_what_came_with_the_head_has_the_heads_time() -> None:
    """Bytes that came before anybody read are not stamped with when they were read."""
    tap, content = await begun(Look())
    tap.parse(7, chunk(b"last"))
    heard = Heard()
    await tap.read(content, heard)
    assert (heard.data, heard.stamped_ns) == ([b"last"], [7])


async def test_who_waits_is_told_of_what_is_no_http() -> None:
    """A body that stops being HTTP ends the wait at once, after what it said before."""
    tap, heard, task = await reading(Look())
    tap.parse(5, chunk(b"a"))
    tap.parse(6, b"zz\r\n")
    with pytest.raises(HttpProcessingError):
        await task
    assert heard.data == [b"a"]


async def test_what_was_noted_is_parsed_before_the_connection_is_lost() -> None:
    """The last bytes of a connection are not lost with it."""
    tap, heard, task = await reading(Look())
    tap.data_received(chunk(b"a"))
    tap.connection_lost(None)
    with pytest.raises(aiohttp.ClientPayloadError):
        await task
    assert heard.data == [b"a"]
