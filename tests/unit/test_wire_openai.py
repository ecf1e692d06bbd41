"""OpenAI's protocol as vLLM and plainer servers speak it."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from fairshare.records import ErrorKind
from fairshare.spec.workload import Sampling
from fairshare.wire.answer import WireError
from fairshare.wire.openai import OpenAiReader, chat_body, completion_body


def chunk(
    choice: dict[str, Any] | None = None, usage: dict[str, Any] | None = None, **extra: Any
) -> bytes:
    """One stream event's data."""
    body: dict[str, Any] = {"id": "cmpl-1", "choices": [] if choice is None else [choice]}
    if usage is not None:
        body["usage"] = usage
    return orjson.dumps(body | extra)


def used(completion: int, cached: int | None = None) -> dict[str, Any]:
    """A usage object."""
    usage: dict[str, Any] = {"prompt_tokens": 12, "completion_tokens": completion}
    return usage if cached is None else usage | {"prompt_tokens_details": {"cached_tokens": cached}}


def read(*events: bytes) -> tuple[OpenAiReader, list[int]]:
    """A reader that has taken ``events``, and the tokens of each."""
    reader = OpenAiReader()
    return reader, [reader.event(event) for event in events]


GOOD = (
    chunk({"text": "", "token_ids": [343], "finish_reason": None}, used(1)),
    chunk({"text": "ab", "token_ids": [1, 2, 3], "finish_reason": None}, used(4)),
    chunk({"text": "", "token_ids": [9], "finish_reason": "length"}, used(5)),
    chunk(usage=used(5, cached=8)),
    b"[DONE]",
)


def test_token_ids_tell_tokens_even_without_text() -> None:
    """Empty text is normal with byte-level tokens; several tokens may share a chunk."""
    reader, tokens = read(*GOOD)
    assert tokens == [1, 3, 1, 0, 0]
    answer = reader.answer
    assert (answer.prompt_tokens, answer.output_tokens, answer.cached_tokens) == (12, 5, 8)
    assert (answer.finish_reason, answer.done, answer.failure()) == ("length", True, None)


def test_continuous_usage_tells_tokens_where_there_are_no_ids() -> None:
    """The growth of usage counts; a role chunk, with usage 0, holds no token."""
    _, tokens = read(
        chunk({"delta": {"role": "assistant", "content": ""}}, used(0)),
        chunk({"delta": {"content": ""}}, used(1)),
        chunk({"delta": {"content": "abc"}}, used(4)),
        chunk({"delta": {}, "finish_reason": "stop"}, used(4)),
        chunk(usage=used(4)),
    )
    assert tokens == [0, 1, 3, 0, 0]


def test_null_token_ids_fall_back_to_usage() -> None:
    """A role chunk of a server that gives token ids has null there."""
    _, tokens = read(
        chunk({"delta": {"role": "assistant"}, "token_ids": None}, used(0)),
        chunk({"delta": {"content": ""}, "token_ids": [5]}, used(1)),
    )
    assert tokens == [0, 1]


def test_ids_in_some_chunks_only_count_no_token_twice() -> None:
    """Where usage takes over from token ids, it goes on from what they told."""
    _, tokens = read(
        chunk({"text": "abc", "token_ids": [1, 2, 3]}, used(3)),
        chunk({"text": "d", "token_ids": None}, used(4)),
        chunk({"text": "ef", "token_ids": [5, 6]}, used(6)),
        chunk({"text": "", "token_ids": None, "finish_reason": "length"}, used(6)),
    )
    assert tokens == [3, 1, 2, 0]


def test_chunks_without_a_token_are_counted_apart() -> None:
    """A role, empty text and a bare finish reason are empty chunks; the closing usage is none."""
    reader, _ = read(
        chunk({"delta": {"role": "assistant", "content": ""}}),
        chunk({"delta": {"content": ""}}),
        chunk({"delta": {"content": "a"}}),
        chunk({"delta": {}, "finish_reason": "stop"}),
        chunk(usage=used(1)),
        b"[DONE]",
    )
    assert reader.answer.empty_chunks == 3


def test_plain_server_counts_one_token_for_each_text() -> None:
    """Without ids and usage only text that is not empty is a token."""
    _, tokens = read(
        chunk({"delta": {"role": "assistant", "content": ""}}),
        chunk({"delta": {"content": "Hi"}}),
        chunk({"delta": {"reasoning_content": "hm"}}),
        chunk({"delta": {"content": None}}),
        chunk({"delta": {}, "finish_reason": "stop"}),
        chunk({"text": "x"}),
        chunk({"text": ""}),
    )
    assert tokens == [0, 1, 1, 0, 0, 1, 0]


def test_usage_on_the_last_chunk_alone_is_not_its_tokens() -> None:
    """A plain server's total on the finishing chunk is not taken for a burst of tokens."""
    reader, tokens = read(
        chunk({"text": "a", "finish_reason": None}),
        chunk({"text": "b", "finish_reason": None}),
        chunk({"text": "", "finish_reason": "stop"}, used(2)),
    )
    assert tokens == [1, 1, 0]
    assert reader.answer.failure() is None


def test_error_in_a_stream_that_ends_regularly_is_an_error() -> None:
    """An error line before [DONE] is a failure, whatever the status was."""
    error = {"message": "EngineCore encountered an issue", "type": "InternalServerError"}
    reader, tokens = read(GOOD[0], orjson.dumps({"error": error | {"code": 500}}), b"[DONE]")
    assert tokens == [1, 0, 0]
    assert reader.answer.failure() == (ErrorKind.SERVER_ERROR, error["message"])


def test_old_error_object_is_an_error() -> None:
    """Servers that put the error at the top level are understood."""
    reader, _ = read(orjson.dumps({"object": "error", "message": "out of memory", "code": 500}))
    assert reader.answer.failure() == (ErrorKind.SERVER_ERROR, "out of memory")


def test_null_error_is_none() -> None:
    """A field ``error: null`` beside the choices is not an error."""
    reader, _ = read(chunk({"text": "x", "finish_reason": "stop"}, used(1), error=None))
    assert reader.answer.failure() is None


def test_abort_is_a_failure() -> None:
    """A draining server answers 200 with finish reason abort and no token."""
    reader, tokens = read(chunk({"text": "", "token_ids": [], "finish_reason": "abort"}), b"[DONE]")
    assert tokens == [0, 0]
    failure = reader.answer.failure()
    assert failure is not None
    assert failure[0] is ErrorKind.ABORTED


def test_what_a_fair_scheduler_refused_is_throttled() -> None:
    """It is no fault of the server: the stop reason tells it from other aborts, in either form."""
    refused = {"text": "", "finish_reason": "abort", "stop_reason": "throttled: too many"}
    reader, _ = read(chunk(refused), b"[DONE]")
    assert reader.answer.failure() == (ErrorKind.THROTTLED, "throttled: too many")
    reader = OpenAiReader()
    reader.whole(chunk(refused))
    assert reader.answer.failure() == (ErrorKind.THROTTLED, "throttled: too many")
    reader, _ = read(chunk(refused | {"finish_reason": "stop"}, used(1)), b"[DONE]")
    assert reader.answer.failure() is None


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        (GOOD[:2] + GOOD[4:], ErrorKind.INCOMPLETE),
        ((GOOD[0], chunk({"text": "", "finish_reason": "stop"}), b"[DONE]"), ErrorKind.NO_USAGE),
    ],
)
def test_success_needs_a_finish_reason_and_a_final_usage(
    events: tuple[bytes, ...], kind: ErrorKind
) -> None:
    """[DONE] alone proves nothing; usage from before the end is not final."""
    reader, _ = read(*events)
    failure = reader.answer.failure()
    assert failure is not None
    assert failure[0] is kind


@pytest.mark.parametrize(
    "data",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"choices":{"a":1}}',
        b'{"choices":["text"]}',
        b'{"choices":[{"text":"x","finish_reason":3}]}',
        b'{"choices":[{"delta":"x"}]}',
        b'{"choices":[{"text":"x"}],"usage":[1]}',
        b'{"choices":[{"text":"x"}],"usage":{"completion_tokens":-1}}',
        b'{"choices":[{"text":"x"}],"usage":{"completion_tokens":"many"}}',
        b'{"choices":[],"usage":{"completion_tokens":1,"prompt_tokens_details":7}}',
    ],
)
def test_what_is_not_the_protocol_is_a_wire_error(data: bytes) -> None:
    """Garbage is named as such."""
    with pytest.raises(WireError):
        OpenAiReader().event(data)


def test_mutated_chunks_never_crash_the_reader() -> None:
    """2,000 damaged chunks are read or refused, never anything else; counts stay sane."""
    rng = random.Random(7)
    values = (None, 0, -1, 1.5, True, "x", [], {}, [1], {"a": 1}, "stop")
    for _ in range(2000):
        reader = OpenAiReader()
        for event in GOOD[:4]:
            body = orjson.loads(event)
            target = rng.choice([body, *body["choices"], body.get("usage", body)])
            target[rng.choice(sorted(target))] = rng.choice(values)
            try:
                assert reader.event(orjson.dumps(body)) >= 0
            except WireError:
                break
        reader.answer.failure()


def test_whole_answers_are_read() -> None:
    """An answer that was not streamed gives reason and counts."""
    reader = OpenAiReader()
    body = {"choices": [{"text": "abc", "finish_reason": "length"}], "usage": used(7, cached=4)}
    assert reader.whole(orjson.dumps(body)) == 7
    assert (reader.answer.cached_tokens, reader.answer.failure()) == (4, None)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[1]}'])
def test_whole_garbage_is_a_wire_error(body: bytes) -> None:
    """A body without choices is no answer."""
    with pytest.raises(WireError):
        OpenAiReader().whole(body)


def test_vllm_request_asks_for_exact_output_and_counts() -> None:
    """Token ids travel as they are, and the extras make length and tokens exact."""
    body = completion_body(
        [1, 2, 3], model="m", max_tokens=9, stream=True, sampling=Sampling(), extras=True
    )
    assert orjson.loads(body) == {
        "model": "m",
        "prompt": [1, 2, 3],
        "max_tokens": 9,
        "min_tokens": 9,
        "ignore_eos": True,
        "temperature": 0.0,
        "stream": True,
        "return_token_ids": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }


def test_plain_request_holds_nothing_but_openai_fields() -> None:
    """Servers that refuse unknown fields get none."""
    sampling = Sampling(temperature=0.7, top_p=0.9)
    body = chat_body("Hi", model="m", max_tokens=9, stream=True, sampling=sampling, extras=False)
    assert orjson.loads(body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 9,
        "temperature": 0.7,
        "top_p": 0.9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_request_without_stream_has_no_stream_options() -> None:
    """Servers refuse stream options where nothing is streamed."""
    sampling = Sampling(ignore_eos=False, top_k=5)
    body = completion_body(
        "Hi", model="m", max_tokens=9, stream=False, sampling=sampling, extras=True
    )
    assert orjson.loads(body) == {
        "model": "m",
        "prompt": "Hi",
        "max_tokens": 9,
        "temperature": 0.0,
        "top_k": 5,
        "stream": False,
    }
