"""TGI's protocol."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from fairshare.records import ErrorKind
from fairshare.spec.workload import Sampling
from fairshare.wire.answer import WireError
from fairshare.wire.tgi import TgiReader, generate_body

DETAILS = {"finish_reason": "eos_token", "generated_tokens": 3, "input_length": 12, "seed": None}


def token(
    index: int, details: dict[str, Any] | None = None, *, special: bool = False, text: str = "x"
) -> bytes:
    """One stream event's data."""
    return orjson.dumps(
        {
            "index": index,
            "token": {"id": index, "text": text, "logprob": -0.1, "special": special},
            "generated_text": "xx" if details else None,
            "details": details,
        }
    )


def test_each_token_event_carries_one_token() -> None:
    """Special tokens and tokens without text count, as in TGI's own total."""
    reader = TgiReader()
    events = (token(1), token(2, text=""), token(3, DETAILS, special=True))
    assert [reader.event(event) for event in events] == [1, 1, 1]
    answer = reader.answer
    assert (answer.finish_reason, answer.output_tokens, answer.prompt_tokens) == ("stop", 3, 12)
    assert answer.done
    assert answer.failure() is None


@pytest.mark.parametrize(
    ("reason", "mapped"), [("length", "length"), ("eos_token", "stop"), ("stop_sequence", "stop")]
)
def test_finish_reasons_are_mapped(reason: str, mapped: str) -> None:
    """Both of TGI's words for an ending of the model's own accord are ``stop``."""
    reader = TgiReader()
    reader.event(token(1, DETAILS | {"finish_reason": reason}))
    assert reader.answer.finish_reason == mapped


def test_details_without_a_token_are_an_empty_chunk() -> None:
    """An event that ends the stream and carries no token is counted apart."""
    reader = TgiReader()
    details = {"finish_reason": "length", "generated_tokens": 1}
    assert reader.event(orjson.dumps({"token": {"id": 1}, "details": None})) == 1
    assert reader.event(orjson.dumps({"token": None, "details": details})) == 0
    assert reader.answer.empty_chunks == 1


def test_prompt_tokens_may_come_from_the_prefill_or_not_at_all() -> None:
    """Older servers list the prefill's tokens; without either the count is absent, not zero."""
    details = {"finish_reason": "length", "generated_tokens": 2}
    body = {"generated_text": "xx", "details": details | {"prefill": [{"id": 1}, {"id": 2}]}}
    reader = TgiReader()
    assert reader.whole(orjson.dumps(body)) == 2
    assert reader.answer.prompt_tokens == 2
    reader = TgiReader()
    reader.whole(orjson.dumps({"generated_text": "xx", "details": details | {"prefill": []}}))
    assert reader.answer.prompt_tokens is None
    assert reader.answer.failure() is None


def test_error_event_is_an_error() -> None:
    """A generation that fails in the middle says so in an event."""
    reader = TgiReader()
    reader.event(token(1))
    reader.event(b'{"error":"Request failed during generation","error_type":"generation"}')
    assert reader.answer.failure() == (
        ErrorKind.SERVER_ERROR,
        "Request failed during generation",
    )


def test_answer_without_details_is_incomplete() -> None:
    """Text alone does not say how it ended."""
    reader = TgiReader()
    reader.whole(b'{"generated_text":"xx"}')
    failure = reader.answer.failure()
    assert failure is not None
    assert failure[0] is ErrorKind.INCOMPLETE


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense",
        b"{}",
        b'{"token":5}',
        b'{"token":null,"details":null}',
        b'{"token":{"id":1},"details":"x"}',
        b'{"token":{"id":1},"details":{"finish_reason":5}}',
        b'{"token":{"id":1},"details":{"finish_reason":"length","generated_tokens":"x"}}',
    ],
)
def test_what_is_not_the_protocol_is_a_wire_error(data: bytes) -> None:
    """Garbage is named as such."""
    with pytest.raises(WireError):
        TgiReader().event(data)


def test_mutated_events_never_crash_the_reader() -> None:
    """2,000 damaged events are read or refused, never anything else."""
    rng = random.Random(11)
    values = (None, 0, -1, 1.5, "x", [], {}, [1], {"a": 1})
    for _ in range(2000):
        body = orjson.loads(token(3, DETAILS))
        target = rng.choice([body, body["token"], body["details"]])
        target[rng.choice(sorted(target))] = rng.choice(values)
        reader = TgiReader()
        try:
            assert reader.event(orjson.dumps(body)) in (0, 1)
        except WireError:
            continue
        reader.answer.failure()


def test_greedy_request_leaves_out_what_tgi_refuses() -> None:
    """Temperature 0 and top_p 1 are errors in TGI; their absence means the same."""
    body = generate_body("Hi", max_tokens=9, sampling=Sampling(top_p=1.0))
    assert orjson.loads(body) == {
        "inputs": "Hi",
        "parameters": {"max_new_tokens": 9, "details": True},
    }


def test_sampled_request_says_how() -> None:
    """A temperature turns sampling on."""
    sampling = Sampling(temperature=0.5, top_p=0.9, top_k=40)
    body = generate_body("Hi", max_tokens=9, sampling=sampling)
    assert orjson.loads(body)["parameters"] == {
        "max_new_tokens": 9,
        "details": True,
        "do_sample": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
    }
