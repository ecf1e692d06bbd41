"""Damaged answers through the whole reader: connection, HTTP, events, protocol, record."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any, cast

import orjson
import pytest

from fairshare.load.ahead import Prepared, RequestQueue
from fairshare.load.connection import Pool
from fairshare.load.exchange import perform
from fairshare.load.lane import Lane
from fairshare.load.stream_transport import HttpConnection, StreamTransport
from fairshare.load.target import Target
from fairshare.records import ErrorKind, Phase, RequestRecord
from fairshare.spec.scenario import Api
from fairshare.spec.workload import Sampling

TARGET = Target(
    "a", "s0", "http://h", "m", Api.COMPLETIONS, True, None, True, True, Sampling(), 30, 30
)
REQUEST = Prepared("1", None, b"{}", 3)
FROM_SERVERS = {
    ErrorKind.DISCONNECT,
    ErrorKind.BAD_RESPONSE,
    ErrorKind.INCOMPLETE,
    ErrorKind.NO_USAGE,
    ErrorKind.SERVER_ERROR,
    ErrorKind.ABORTED,
    ErrorKind.HTTP_4XX,
    ErrorKind.HTTP_5XX,
}


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(**body: object) -> bytes:
    """One event."""
    return b"data: " + orjson.dumps(body) + b"\n\n"


def token(text: str, *ids: int, finish: str | None = None) -> bytes:
    """An event of some tokens."""
    return event(choices=[{"text": text, "token_ids": ids, "finish_reason": finish}])


ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    + chunk(b": ping\n\n" + token(""))
    + chunk(token("gr\N{LATIN SMALL LETTER U WITH DIAERESIS}\N{GRINNING FACE}", 7))
    + chunk(token("xy", 8, 9, finish="length"))
    + chunk(event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 3}))
    + chunk(b"data: [DONE]\n\n")
    + b"0\r\n\r\n"
)


class Wire:
    """A socket without a network: takes the request, and says nothing by itself."""

    def fileno(self) -> int:
        """None that anybody could watch."""
        return -1

    def send(self, data: memoryview) -> int:
        """Take the request."""
        return len(data)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Nothing has come."""
        raise BlockingIOError

    def close(self) -> None:
        """Drop it."""


class NoPoller:
    """Watches nothing: the test itself says what arrives."""

    def watch(self, *_: Any) -> None:
        """A connection is there."""

    def forget(self, _: int) -> None:
        """A connection is gone."""

    def close(self) -> None:
        """All are gone."""


async def record_of(pieces: list[bytes]) -> RequestRecord:
    """The record of an answer that arrives in these pieces, then ends."""
    transport: Any = StreamTransport("http://h:1")
    pool = transport.pool = Pool(transport._connect)
    pool.poller = cast("Any", NoPoller())
    connection = HttpConnection(pool, cast("Any", Wire()))
    pool.free(connection)
    record = RequestRecord("1", "a", "s0", Phase.MEASURE, 0)
    queue = RequestQueue(TARGET, iter(()), ahead=0, on_error=lambda error: None)
    lane = Lane(TARGET, transport, {}, queue)
    task = asyncio.get_running_loop().create_task(perform(lane, REQUEST, record, 0))
    await asyncio.sleep(0)
    for piece in pieces:
        if connection.is_open:
            connection.parse(time.monotonic_ns(), piece)
    if connection.is_open:
        connection.lost(time.monotonic_ns(), None)
    await task
    await transport.close()
    return record


def mutated(rng: random.Random) -> bytes:
    """The answer with some bytes changed, lost, doubled or put in."""
    data = bytearray(ANSWER)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randint(1, 20)]
            case 2:
                data[at:at] = data[at : at + rng.randint(1, 60)]
            case _:
                data[at:at] = rng.choice([b"\r\n", b"\n\n", b"\r", b"0\r\n\r\n", b"\0", b"}", b"["])
        data = data or bytearray(b"x")
    return bytes(data)


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    """The same bytes in a few pieces."""
    cuts = sorted({rng.randrange(1, len(data) + 1) for _ in range(rng.randint(1, 6))} | {len(data)})
    return [data[a:b] for a, b in zip([0, *cuts], cuts, strict=False)]


async def check(seed: int, count: int) -> set[ErrorKind | None]:
    """Each damaged answer becomes one sound record; the kinds that were found."""
    rng = random.Random(seed)
    kinds: set[ErrorKind | None] = set()
    for _ in range(count):
        data = mutated(rng)
        record = await record_of(cut(data, rng))
        kinds.add(record.error)
        assert record.error is None or record.error in FROM_SERVERS, (record.error_text, data)
        assert len(record.chunk_ns) == len(record.chunk_tokens)
        assert record.end_ns is not None
        assert record.chunk_ns == sorted(record.chunk_ns)
        assert RequestRecord.from_mapping(orjson.loads(record.to_json())) == record
        whole = await record_of([data])
        assert record.error == whole.error, (record.error_text, whole.error_text, data)
        assert record.chunk_tokens == whole.chunk_tokens, data
        assert record.output_tokens == whole.output_tokens, data
    return kinds


async def test_the_answer_itself_is_good_wherever_it_is_cut() -> None:
    """Every split point of the undamaged answer gives the same record."""
    for at in range(len(ANSWER) + 1):
        record = await record_of([piece for piece in (ANSWER[:at], ANSWER[at:]) if piece])
        assert record.ok, (at, record.error_text)
        assert (record.chunk_tokens, record.output_tokens, record.empty_chunks) == ([1, 2], 3, 1)


async def test_garbage_after_the_last_event_spoils_nothing() -> None:
    """An answer that is complete stays good, in one read with whatever follows."""
    record = await record_of([ANSWER.removesuffix(b"0\r\n\r\n") + b"garbage\r\n"])
    assert record.ok, record.error_text


async def test_tokens_before_garbage_are_kept() -> None:
    """What arrived is in the record, though the answer failed in the same read."""
    begun = ANSWER[: ANSWER.index(chunk(token("xy", 8, 9, finish="length")))]
    record = await record_of([begun + b"garbage\r\n"])
    assert record.error is ErrorKind.BAD_RESPONSE
    assert record.chunk_tokens == [1]


@pytest.mark.parametrize("seed", range(4))
async def test_damaged_answers_become_sound_records(seed: int) -> None:
    """20,000 broken answers: no crash, no fault of our own, no difference by the cuts."""
    kinds = await check(seed, 5000)
    assert {None, ErrorKind.BAD_RESPONSE, ErrorKind.DISCONNECT, ErrorKind.INCOMPLETE} <= kinds


@pytest.mark.full
@pytest.mark.timeout(3600)
async def test_a_million_damaged_answers() -> None:
    """The same, a million times."""
    await check(99, 1_000_000)
