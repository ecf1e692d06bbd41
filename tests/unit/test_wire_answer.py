"""What counts as a good answer, and how errors are worded."""

from __future__ import annotations

import pytest

from fairshare.records import ErrorKind
from fairshare.wire.answer import (
    Answer,
    WireError,
    count_or_none,
    error_of_body,
    excerpt,
    json_object,
)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(finish_reason="stop", output_tokens=3, counted=True), None),
        (Answer(finish_reason="length", output_tokens=0, counted=True), None),
        (Answer(finish_reason="abort", output_tokens=0, counted=True), ErrorKind.ABORTED),
        (Answer(output_tokens=3, done=True), ErrorKind.INCOMPLETE),
        (Answer(finish_reason="content_filter", counted=True), ErrorKind.INCOMPLETE),
        (Answer(finish_reason="stop", output_tokens=3), ErrorKind.NO_USAGE),
        (Answer(finish_reason="stop", counted=True, error="boom"), ErrorKind.SERVER_ERROR),
    ],
)
def test_failure_names_exactly_one_kind(answer: Answer, kind: ErrorKind | None) -> None:
    """Only stop or length, with a final count of tokens and no error, is a good answer."""
    failure = answer.failure()
    assert (failure[0] if failure else None) is kind


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error":{"message":"no such model","code":404}}', "no such model"),
        (b'{"error":"queue full","error_type":"overloaded"}', "queue full"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"object":"error","message":"bad"}', "bad"),
        (b"<html>\n  <h1>Bad   Gateway</h1>", "<html> <h1>Bad Gateway</h1>"),
        (b"", ""),
    ],
)
def test_error_of_body_finds_the_message(body: bytes, text: str) -> None:
    """The message is found however the server nests it, else the body's beginning is shown."""
    assert error_of_body(body) == text


def test_excerpt_is_one_short_line() -> None:
    """What is quoted of a body fits on a line and says that it goes on."""
    assert excerpt(b"a\n\tb") == "a b"
    assert excerpt(b"x" * 500) == "x" * 120 + "..."
    assert excerpt(b"\xff\xfe") == "\ufffd\ufffd"


@pytest.mark.parametrize("data", [b"", b"nonsense", b"[1]", b'"text"', b"null", b"{"])
def test_json_object_takes_objects_only(data: bytes) -> None:
    """Anything but a JSON object is a protocol error, not a crash."""
    with pytest.raises(WireError):
        json_object(data)


@pytest.mark.parametrize("value", [-1, 1.5, "3", True, [1]])
def test_count_or_none_refuses_what_is_no_count(value: object) -> None:
    """Counts of tokens are whole and not negative."""
    with pytest.raises(WireError):
        count_or_none(value)
