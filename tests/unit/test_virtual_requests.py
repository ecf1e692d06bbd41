"""What the virtual server accepts, refuses, and answers, against vLLM's behaviour."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fairshare.virtual.answers import AnswerWriter
from fairshare.virtual.requests import ParsedRequest, RequestError, Served, parse_request

SERVED = Served("m", vocab_size=1000, max_model_len=100, eos_token_ids=(7,))


def parse(*, chat: bool = False, **body: Any) -> ParsedRequest:
    """A parsed request; the prompt is three tokens unless given."""
    default: dict[str, Any] = (
        {"messages": [{"role": "user", "content": "t1 t2 t3"}]} if chat else {"prompt": [1, 2, 3]}
    )
    return parse_request({"model": "m", **default, **body}, SERVED, chat=chat)


def test_defaults_are_vllms() -> None:
    """16 tokens for completions, the rest of the context for chat; EOS ends an answer."""
    assert parse().max_tokens == 16
    assert parse(chat=True).max_tokens == 97
    assert parse().stop_ids == {7}
    assert parse(ignore_eos=True).stop_ids == set()
    assert parse(ignore_eos=True, stop_token_ids=[5]).stop_ids == {5}


def test_prompts_may_be_ids_text_or_messages() -> None:
    """The three forms of the same prompt are the same tokens."""
    assert parse().prompt == parse(prompt="t1 t2 t3").prompt == parse(chat=True).prompt
    assert parse(prompt=[[1, 2]]).prompt == [1, 2]
    assert parse(prompt=["t4"]).prompt == [4]
    parts = [{"role": "user", "content": [{"type": "text", "text": "t9"}]}]
    assert parse(chat=True, messages=parts).prompt == [9]


def test_too_many_tokens_are_cut_silently() -> None:
    """As with vLLM, max_tokens beyond the context is not an error."""
    assert parse(max_tokens=500).max_tokens == 97
    assert parse(chat=True, max_completion_tokens=5, max_tokens=9).max_tokens == 5


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"prompt": []}, 400, "cannot be empty"),
        ({"prompt": None}, 400, "prompt must be text"),
        ({"prompt": [1000]}, 400, "Token id 1000 is out of vocabulary"),
        ({"prompt": [-1]}, 400, "Token id -1 is out of vocabulary"),
        ({"prompt": [1.5]}, 400, "list of token ids"),
        ({"prompt": [[1], [2]]}, 400, "one prompt"),
        ({"prompt": [1] * 100}, 400, "maximum context length is 100 tokens"),
        ({"max_tokens": 0}, 400, "max_tokens must be at least 1, got 0"),
        ({"max_tokens": "5"}, 400, "max_tokens must be at least 1"),
        ({"n": 2}, 400, "n must be 1"),
        ({"stop": ["x"]}, 400, "does not simulate stop"),
        ({"stream_options": 3}, 400, "stream_options"),
        ({"model": "other"}, 404, "The model `other` does not exist."),
    ],
)
def test_bad_requests_are_refused_in_vllms_form(
    body: dict[str, Any], status: int, text: str
) -> None:
    """Status, error object and message are what a client of vLLM would see."""
    with pytest.raises(RequestError) as caught:
        parse(**body)
    error = caught.value.body["error"]
    assert caught.value.status == error["code"] == status
    assert text in error["message"]
    assert error["type"] == ("NotFoundError" if status == 404 else "BadRequestError")


@pytest.mark.parametrize("messages", [None, [], ["x"], [{"role": "user"}], [{"content": 3}]])
def test_bad_messages_are_refused(messages: Any) -> None:
    """A chat without usable messages is refused."""
    with pytest.raises(RequestError):
        parse(chat=True, messages=messages)


def events(data: bytes) -> list[Any]:
    """The JSON of each event; the string [DONE] stays."""
    found = [part.removeprefix(b"data: ") for part in data.split(b"\n\n") if part]
    return [part.decode() if part == b"[DONE]" else orjson.loads(part) for part in found]


def write(request: ParsedRequest, tokens: int) -> list[Any]:
    """All events of an answer."""
    writer = AnswerWriter(request, "m", 1000)
    data = b""
    for i in range(tokens):
        writer.next_token(last=i == tokens - 1)
        data += writer.event()
    return events(data)


def test_stream_with_everything_on_has_vllms_shape() -> None:
    """Ids and usage in each chunk, prompt ids in the first, the reason with the last token."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    first, second, usage, done = write(
        parse(stream=True, return_token_ids=True, stream_options=options), 2
    )
    choice = first["choices"][0]
    assert first["object"] == "text_completion"
    assert choice["text"] == f" t{choice['token_ids'][0]}"
    assert choice["prompt_token_ids"] == [1, 2, 3]
    assert choice["finish_reason"] is None
    assert first["usage"] == {
        "prompt_tokens": 3,
        "total_tokens": 4,
        "completion_tokens": 1,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert second["choices"][0]["finish_reason"] == "length"
    assert "prompt_token_ids" not in second["choices"][0]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 2
    assert done == "[DONE]"
    assert first["id"] == second["id"] == usage["id"]


def test_plain_stream_has_neither_usage_nor_ids() -> None:
    """What was not asked for is not sent."""
    first, done = write(parse(stream=True), 1)
    assert "usage" not in first
    assert "token_ids" not in first["choices"][0]
    assert done == "[DONE]"


def test_chat_stream_starts_with_the_role() -> None:
    """The first chunk of a chat names the role and carries no token."""
    role, token, done = write(parse(chat=True, stream=True), 1)
    assert role["object"] == "chat.completion.chunk"
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert token["choices"][0]["delta"]["content"].startswith(" t")
    assert done == "[DONE]"


@pytest.mark.parametrize("chat", [False, True], ids=["completion", "chat"])
def test_whole_answer_holds_text_reason_and_usage(chat: bool) -> None:
    """An answer that is not streamed says the same in one body."""
    writer = AnswerWriter(parse(chat=chat), "m", 1000)
    assert not writer.next_token(last=False)
    assert writer.next_token(last=True)
    body = orjson.loads(writer.whole())
    choice = body["choices"][0]
    text = choice["message"]["content"] if chat else choice["text"]
    assert text.split() == [f"t{token}" for token in writer.tokens]
    assert choice["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 2


def test_a_stop_token_ends_the_answer_but_not_before_min_tokens() -> None:
    """The reason is stop when a stop token comes, unless too few tokens have come before it."""
    probe = AnswerWriter(parse(), "m", 1000)
    for _ in range(3):
        probe.next_token(last=False)
    third = probe.tokens[2]
    stopped = AnswerWriter(parse(stop_token_ids=[third]), "m", 1000)
    assert [stopped.next_token(last=False) for _ in range(3)] == [False, False, True]
    assert stopped.finish_reason == "stop"
    held = AnswerWriter(parse(stop_token_ids=[third], min_tokens=4), "m", 1000)
    assert not any(held.next_token(last=False) for _ in range(3))
