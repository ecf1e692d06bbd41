"""One exchange, one record: what was said, when, and how it ended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import replace

import orjson
import pytest

from fairshare.load.ahead import Prepared, RequestQueue
from fairshare.load.exchange import MAX_KEPT, MAX_TEXT, Exchange, perform
from fairshare.load.lane import Lane
from fairshare.load.target import Target
from fairshare.load.transport import Receiver, TransportError
from fairshare.records import ErrorKind, Phase, RequestRecord
from fairshare.spec.scenario import Api
from fairshare.spec.workload import Sampling

TARGET = Target(
    "a", "s0", "http://h", "m", Api.COMPLETIONS, True, "sk-1", True, True, Sampling(), 30, 30
)
ORIGIN_NS = 1_000
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


def event(**body: object) -> bytes:
    """One event."""
    return b"data: " + orjson.dumps(body) + b"\n\n"


FIRST = event(choices=[{"text": "", "token_ids": [7]}])
LAST = event(choices=[{"text": "b", "token_ids": [8], "finish_reason": "length"}])
COUNT = event(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"
Script = Callable[[Receiver], None]


class Scripted:
    """A transport that plays a script on the receiver instead of talking to a server."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def post(
        self, path: str, headers: Mapping[str, str], body: bytes, receiver: Receiver
    ) -> None:
        """Play the script."""
        self._script(receiver)

    async def close(self) -> None:
        """There is nothing to close."""


async def record_of(script: Script, target: Target = TARGET) -> RequestRecord:
    """The record of one exchange that goes as ``script`` says."""
    record = RequestRecord("1", "a", "s0", Phase.MEASURE, 0)
    queue = RequestQueue(target, iter(()), ahead=0, on_error=lambda error: None)
    lane = Lane(target, Scripted(script), target.headers(), queue)
    await perform(lane, Prepared("1", None, b"{}", 8), record, ORIGIN_NS)
    return record


def streamed(*pieces: bytes, status: int = 200, ends: bool = True) -> Script:
    """A stream whose pieces arrive at 20, 30, ... on the transport's clock."""

    def script(receiver: Receiver) -> None:
        now_ns = ORIGIN_NS + 10
        receiver.on_headers(now_ns, status, "text/event-stream; charset=utf-8")
        for piece in pieces:
            now_ns += 10
            if receiver.on_data(now_ns, piece):
                return
        if ends:
            receiver.on_end(now_ns + 10)

    return script


async def test_stamps_are_of_the_read_that_brought_the_token() -> None:
    """Chunks of one read share its time; chunks without a token leave no mark."""
    role = event(choices=[{"text": ""}])
    record = await record_of(streamed(role, FIRST + LAST, COUNT, DONE))
    assert (record.headers_ns, record.first_token_ns, record.end_ns) == (10, 30, 50)
    assert (record.chunk_ns, record.chunk_tokens) == ([30, 30], [1, 1])
    assert (record.prompt_tokens, record.output_tokens, record.finish_reason) == (3, 2, "length")
    assert record.ok
    assert record.sent_ns is not None


async def test_reads_that_are_parsed_together_keep_their_own_times() -> None:
    """When it is parsed changes no stamp, and neither the first token nor the end waits for it."""
    many = 2 * MAX_KEPT + 3
    record = RequestRecord("1", "a", "s0", Phase.MEASURE, 0)
    exchange = Exchange(TARGET, record, ORIGIN_NS, many)
    exchange.on_headers(ORIGIN_NS, 200, "text/event-stream")
    for number in range(many):
        exchange.on_data(ORIGIN_NS + 10 * number, FIRST)
        assert record.first_token_ns == 0
        assert exchange.last_ns == ORIGIN_NS + 10 * number
        assert number - len(record.chunk_ns) < MAX_KEPT
    assert exchange.on_data(ORIGIN_NS + 10 * many, LAST + COUNT + DONE)
    exchange.conclude(None, ORIGIN_NS + 10**6)
    assert record.chunk_ns == [10 * number for number in range(many + 1)]
    assert record.end_ns == 10 * many
    assert record.ok


async def test_what_was_kept_is_parsed_however_it_ends() -> None:
    """Tokens before a break are in the record, and nonsense before it is what went wrong first."""
    record = await record_of(breaking(FIRST, FIRST, FIRST))
    assert (record.chunk_ns, record.error) == ([20, 30, 40], ErrorKind.DISCONNECT)
    record = await record_of(breaking(FIRST, FIRST, b"data: {no}\n\n"))
    assert (record.chunk_ns, record.error) == ([20, 30], ErrorKind.BAD_RESPONSE)
    record = await record_of(streamed(FIRST, FIRST, LAST, COUNT))
    assert (record.chunk_ns, record.error) == ([20, 30, 40], None)


async def test_chunks_without_a_token_are_counted_in_the_record() -> None:
    """They are told apart from tokens, and from nothing having been counted at all."""
    role = event(choices=[{"text": ""}])
    assert (await record_of(streamed(role, role, FIRST, LAST, COUNT, DONE))).empty_chunks == 2
    assert (await record_of(streamed(FIRST, LAST, COUNT, DONE))).empty_chunks == 0


async def test_an_endless_stream_ends_soon_after_its_last_token() -> None:
    """Tokens far beyond what was asked for end the request, so that its record stays small."""

    def script(receiver: Receiver) -> None:
        receiver.on_headers(ORIGIN_NS, 200, "text/event-stream")
        for now_ns in range(ORIGIN_NS, ORIGIN_NS + 10**6):
            receiver.on_data(now_ns, FIRST * 10)

    record = await record_of(script)
    assert record.error is ErrorKind.BAD_RESPONSE
    assert "only 8 tokens were asked for" in (record.error_text or "")
    assert len(record.chunk_ns) < 300


@pytest.mark.parametrize("body", [b'{"error":{"message":"no slot"}}', b'{"error":"no slot"}'])
async def test_an_error_in_place_of_a_stream_is_the_servers_own(body: bytes) -> None:
    """A 200 with an error inside says so, whatever its type; another 200 is no answer."""

    def script(receiver: Receiver) -> None:
        receiver.on_headers(ORIGIN_NS, 200, "application/json")
        receiver.on_data(ORIGIN_NS + 10, body)
        receiver.on_end(ORIGIN_NS + 20)

    record = await record_of(script)
    assert (record.error, record.error_text) == (ErrorKind.SERVER_ERROR, "no slot")
    body = b'{"choices":[{"text":"a","finish_reason":"stop"}],"usage":{"completion_tokens":1}}'
    assert (await record_of(script)).error is ErrorKind.BAD_RESPONSE


async def test_a_refusal_says_when_to_ask_again() -> None:
    """Retry-After stays with the record, in numbers and in words."""

    def script(receiver: Receiver) -> None:
        receiver.on_headers(ORIGIN_NS, 429, "application/json", "7")
        receiver.on_data(ORIGIN_NS + 10, b'{"error":{"message":"too many"}}')
        receiver.on_end(ORIGIN_NS + 20)

    record = await record_of(script)
    assert (record.error, record.retry_after_s) == (ErrorKind.THROTTLED, 7)
    assert record.error_text == "429, retry after 7 s: too many"


async def test_a_stream_may_end_without_done() -> None:
    """The end of the body ends the answer as well; its time is the end's."""
    record = await record_of(streamed(FIRST, LAST, COUNT))
    assert record.ok
    assert record.end_ns == 50


def breaking(*pieces: bytes) -> Script:
    """A stream that breaks off after its pieces."""

    def script(receiver: Receiver) -> None:
        streamed(*pieces, ends=False)(receiver)
        raise TransportError(ErrorKind.DISCONNECT, "gone")

    return script


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ((FIRST,), ErrorKind.DISCONNECT),
        ((FIRST, LAST), ErrorKind.DISCONNECT),
        ((FIRST, LAST, COUNT), None),
        ((FIRST, event(error={"message": "dying"})), ErrorKind.SERVER_ERROR),
    ],
)
async def test_broken_connection_matters_unless_all_was_said(
    pieces: tuple[bytes, ...], error: ErrorKind | None
) -> None:
    """A complete answer stays good; the server's own account goes before the connection's."""
    assert (await record_of(breaking(*pieces))).error is error


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (streamed(), ErrorKind.BAD_RESPONSE),
        (streamed(b": only comments\n\n"), ErrorKind.BAD_RESPONSE),
        (streamed(FIRST), ErrorKind.INCOMPLETE),
        (streamed(FIRST, DONE), ErrorKind.INCOMPLETE),
        (streamed(FIRST, LAST, DONE), ErrorKind.NO_USAGE),
        (streamed(b"no such page", status=404), ErrorKind.HTTP_4XX),
        (streamed(b"x" * 100_000, status=500), ErrorKind.HTTP_5XX),
        (streamed(b"", status=304), ErrorKind.BAD_RESPONSE),
    ],
)
async def test_each_end_has_one_kind(script: Script, error: ErrorKind) -> None:
    """However it ends, the record has exactly one kind, a text, and an end."""
    record = await record_of(script)
    assert record.error is error
    assert record.error_text
    assert len(record.error_text) <= MAX_TEXT
    assert record.end_ns is not None


async def test_surprises_are_our_own_fault() -> None:
    """An exception that nobody foresaw is a record of kind client, not a lost request."""

    def script(receiver: Receiver) -> None:
        raise ZeroDivisionError("oops")

    record = await record_of(script)
    assert (record.error, record.error_text) == (ErrorKind.CLIENT, "ZeroDivisionError: oops")


async def test_cancellation_is_unfinished_and_keeps_what_was_received() -> None:
    """What had arrived before the cell ended stays in the record."""

    def script(receiver: Receiver) -> None:
        streamed(FIRST, ends=False)(receiver)
        raise asyncio.CancelledError

    record = await record_of(script)
    assert record.error is ErrorKind.UNFINISHED
    assert record.chunk_tokens == [1]


async def test_key_that_a_server_quotes_is_hidden_before_the_text_is_cut() -> None:
    """No part of the key is left in an error's text, at its end neither."""
    quote = b'{"error":{"message":"' + b"x" * (MAX_TEXT - 8) + b' sk-1 is wrong"}}'
    record = await record_of(streamed(quote, status=401))
    assert "sk-" not in (record.error_text or "")


async def test_damaged_streams_never_become_our_own_fault() -> None:
    """2,000 streams with flipped, lost and doubled bytes: each is good or has a server's kind."""
    rng = random.Random(3)
    whole = event(choices=[{"text": "x"}]) + FIRST + b": ping\n\n" + LAST + COUNT + DONE
    kinds = set()
    for _ in range(2000):
        stream = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            place = rng.randrange(len(stream))
            match rng.randrange(3):
                case 0:
                    stream[place] = rng.randrange(256)
                case 1:
                    del stream[place : place + rng.randint(1, 20)]
                case _:
                    stream[place:place] = stream[place : place + rng.randint(1, 60)]
        cut = rng.randrange(len(stream))
        record = await record_of(streamed(bytes(stream[:cut]), bytes(stream[cut:])))
        kinds.add(record.error)
        assert record.end_ns is not None
        assert len(record.chunk_ns) == len(record.chunk_tokens)
        assert RequestRecord.from_mapping(orjson.loads(record.to_json())) == record
    assert kinds <= {
        None,
        ErrorKind.BAD_RESPONSE,
        ErrorKind.INCOMPLETE,
        ErrorKind.NO_USAGE,
        ErrorKind.SERVER_ERROR,
        ErrorKind.ABORTED,
    }
    assert {None, ErrorKind.BAD_RESPONSE, ErrorKind.INCOMPLETE} <= kinds


async def test_what_a_server_says_is_safe_to_print_and_to_store() -> None:
    """Control characters and bytes that are no text reach neither terminal nor file."""

    def script(receiver: Receiver) -> None:
        receiver.on_headers(ORIGIN_NS, 200, "text/\udcff\x1b[31mhtml")
        receiver.on_data(ORIGIN_NS + 10, b"\x1b]0;title\x07\xff page")
        receiver.on_end(ORIGIN_NS + 20)

    record = await record_of(script)
    assert record.error is ErrorKind.BAD_RESPONSE
    assert record.error_text is not None
    assert record.error_text.isprintable()
    assert orjson.loads(record.to_json())["error_text"] == record.error_text


async def test_whole_answer_is_one_chunk() -> None:
    """Without streaming all tokens arrive together, at the end."""

    def script(receiver: Receiver) -> None:
        body = {"choices": [{"text": "ab", "finish_reason": "length"}], "usage": USAGE}
        receiver.on_headers(ORIGIN_NS + 10, 200, "application/json")
        receiver.on_data(ORIGIN_NS + 20, orjson.dumps(body))
        receiver.on_end(ORIGIN_NS + 30)

    record = await record_of(script, replace(TARGET, stream=False))
    assert record.ok
    assert (record.chunk_ns, record.chunk_tokens, record.first_token_ns) == ([30], [2], 30)


async def test_a_stream_that_ends_unbegun_was_thrown_out() -> None:
    """Where a policy decides inside the server, an end in order without a token is its doing."""
    unbegun = streamed(event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 0}), DONE)
    assert (await record_of(unbegun)).error is ErrorKind.ABORTED
    inside = await record_of(unbegun, replace(TARGET, labelled=True))
    assert inside.error is ErrorKind.THROTTLED
    assert inside.error_text == "the scheduler inside the server ended it before its first token"
