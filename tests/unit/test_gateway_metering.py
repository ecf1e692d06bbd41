"""What passing bytes cost, and what a client does not see of them."""

from __future__ import annotations

import random

import orjson
import pytest

from fairshare.gateway.metering import Mask, StreamMeter, WholeMeter
from fairshare.wire.answer import WireError
from fairshare.wire.openai import OpenAiReader
from fairshare.wire.sse import MAX_EVENT_BYTES
from fairshare.wire.tgi import TgiReader


def usage(output: int) -> dict[str, int]:
    """As a server counts."""
    return {"prompt_tokens": 7, "total_tokens": 7 + output, "completion_tokens": output}


def event(text: str, counted: int | None, end: bytes = b"\n\n", finish: str | None = None) -> bytes:
    """One chunk."""
    body = {"id": "c", "choices": [{"index": 0, "text": text, "finish_reason": finish}]}
    return b"data: " + orjson.dumps(body | ({"usage": usage(counted)} if counted else {})) + end


def final(output: int, end: bytes = b"\n\n") -> bytes:
    """The chunk that counts all."""
    details = {"prompt_tokens_details": {"cached_tokens": 4}}
    body = {"id": "c", "choices": [], "usage": usage(output) | details}
    return b"data: " + orjson.dumps(body) + end


TRAP = 'he said ,"usage":{"completion_tokens":999999} and data: {"error"'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize("continuous", [True, False])
def test_tokens_are_counted_whatever_the_cuts_of_the_network(continuous: bool) -> None:
    """A stream costs what its server says, and a text that looks like a count costs nothing."""
    stream = b"".join(event(TRAP, n if continuous else None) for n in range(1, 31))
    stream += event("", 30 if continuous else None, finish="length") + final(30) + DONE
    rng = random.Random(5)
    for _ in range(30):
        meter = StreamMeter(OpenAiReader(), None, continuous=continuous)
        at, passed = 0, b""
        while at < len(stream):
            cut = at + rng.randint(1, 200)
            passed += meter.feed(stream[at:cut])
            at = cut
        passed += meter.close()
        assert passed == stream, "bytes go on as they came"
        assert (meter.tokens, meter.prompt_tokens, meter.cached_tokens) == (30, 7, 4)
        assert not meter.error


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
@pytest.mark.parametrize("keep_last", [True, False])
def test_a_client_sees_no_usage_that_it_did_not_ask_for(keep_last: bool, end: bytes) -> None:
    """All that was only asked for by the gateway is taken out, and not a byte beside it."""
    counted = [event(TRAP, n, end) for n in range(1, 11)]
    plain = [event(TRAP, None, end) for _ in range(1, 11)]
    stream = b": ping" + end + b"".join(counted) + final(10, end) + b"data: [DONE]" + end
    wanted = b": ping" + end + b"".join(plain) + (final(10, end) if keep_last else b"")
    wanted += b"data: [DONE]" + end
    for size in (1, 7, 100, 10_000):
        meter = StreamMeter(OpenAiReader(), Mask(keep_last=keep_last), continuous=True)
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert b"".join(map(meter.feed, pieces)) + meter.close() == wanted
        assert meter.tokens == 10


def test_a_usage_of_null_and_a_usage_in_front_are_hidden_too() -> None:
    """Servers put the field where they like, and null where they do not count yet."""
    mask = Mask(keep_last=False)
    null = b'data: {"choices":[{"text":"a"}],"usage":null}\n\n'
    front = b'data: {"usage":{"completion_tokens":1},"choices":[{"text":"a"}]}\n\n'
    assert mask.hidden(mask.whole_events(null)) == b'data: {"choices":[{"text":"a"}]}\n\n'
    assert mask.hidden(mask.whole_events(front)) == b'data: {"choices":[{"text":"a"}]}\n\n'


def test_a_server_that_does_not_count_in_each_chunk_is_read_instead() -> None:
    """Chunks are counted where the server was thought to count and does not."""
    meter = StreamMeter(OpenAiReader(), None, continuous=True)
    meter.feed(event("a", None))
    meter.feed(event("b", None))
    assert meter.tokens == 2
    meter.feed(final(5))
    meter.close()
    assert meter.tokens == 5


def test_an_error_inside_a_stream_is_seen() -> None:
    """Servers tell of a failure in the middle of an answer that began with status 200."""
    error = b'data: {"error": {"message": "broken", "code": 500}}\n\n'
    for continuous in (True, False):
        meter = StreamMeter(OpenAiReader(), None, continuous=continuous)
        meter.feed(error + DONE)
        meter.close()
        assert meter.error
        assert meter.tokens == 0


def test_garbage_passes_uncounted_and_a_line_without_end_fills_no_memory() -> None:
    """What cannot be read is handed on; what must be held back to be masked has a limit."""
    meter = StreamMeter(OpenAiReader(), None, continuous=False)
    junk = b"data: <html>\n\n" * 3
    assert meter.feed(junk) == junk
    for _ in range(4):
        assert len(meter.feed(b"x" * MAX_EVENT_BYTES)) == MAX_EVENT_BYTES
    masked = StreamMeter(OpenAiReader(), Mask(keep_last=False), continuous=True)
    with pytest.raises(WireError):
        for _ in range(4):
            masked.feed(b"x" * MAX_EVENT_BYTES)


def test_an_answer_that_is_not_streamed_is_counted_at_its_end() -> None:
    """Both protocols say in a whole answer what it cost, all outputs together."""
    openai = WholeMeter(OpenAiReader())
    body = orjson.dumps({"choices": [{"finish_reason": "stop"}], "usage": usage(12)})
    assert openai.feed(body[:20]) + openai.feed(body[20:]) + openai.close() == body
    assert (openai.tokens, openai.prompt_tokens) == (12, 7)
    tgi = WholeMeter(TgiReader())
    details = {"generated_tokens": 3, "finish_reason": "length", "input_length": 5}
    tgi.feed(orjson.dumps({"generated_text": "x", "details": details}))
    tgi.close()
    assert (tgi.tokens, tgi.prompt_tokens) == (3, 5)
