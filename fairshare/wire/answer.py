"""What an answer has told so far, whichever protocol it came by, and whether it is a good one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from fairshare.records import ErrorKind

GOOD_FINISHES = ("stop", "length")


class WireError(ValueError):
    """What came is not the protocol that was spoken."""


@dataclass(slots=True)
class Answer:
    """What the server said about one answer; None is what it has not said.

    ``output_tokens`` is the server's own count (usage), the last it gave; ``counted`` says that it
    came with the finish reason or after it, so that it is final; ``done`` that the protocol's end
    was seen (``[DONE]``, or the details that end a TGI stream). ``empty_chunks`` are those of a
    stream that carried no token: a role, a finish reason, text that is empty. ``throttled`` is why
    a fair scheduler inside the server ended it.
    """

    finish_reason: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    counted: bool = False
    empty_chunks: int = 0
    error: str | None = None
    done: bool = False
    throttled: str | None = None

    @property
    def ended_unbegun(self) -> bool:
        """Whether the server ended it in order, with neither a token nor a reason.

        vLLM streams an aborted request so: it leaves out the chunk that has no token, and with it
        the finish reason.
        """
        return self.done and self.finish_reason is None and self.output_tokens == 0

    def failure(self) -> tuple[ErrorKind, str] | None:
        """Why this is not a complete, correct answer; None if it is one.

        An answer is good if it finished by ``stop`` or ``length`` and its tokens are counted:
        servers end broken streams with an error line and a regular ``[DONE]``.
        """
        if self.error is not None:
            return ErrorKind.SERVER_ERROR, self.error
        if self.throttled is not None:
            return ErrorKind.THROTTLED, self.throttled
        if self.finish_reason == "abort" or self.ended_unbegun:
            return ErrorKind.ABORTED, "the server aborted the request"
        if self.finish_reason not in GOOD_FINISHES:
            ended = f"the finish reason is {self.finish_reason!r}"
            none = "the answer ended without a finish reason"
            return ErrorKind.INCOMPLETE, none if self.finish_reason is None else ended
        if not self.counted:
            return ErrorKind.NO_USAGE, "the server never said how many tokens it made"
        return None


class AnswerReader(Protocol):
    """Reads one answer of one protocol. One reader per request."""

    answer: Answer

    def event(self, data: bytes) -> int:
        """Take the data of one stream event; return how many tokens it carries.

        Raises:
            WireError: it is not the protocol.
        """
        ...

    def whole(self, body: bytes) -> int:
        """Take an answer that was not streamed; return how many tokens it carries.

        Raises:
            WireError: it is not the protocol.
        """
        ...


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object that ``data`` holds.

    Raises:
        WireError: it is not JSON, or not an object.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise WireError(f"not JSON ({error}): {excerpt(data)}") from None
    if type(value) is not dict:
        raise WireError(f"not a JSON object: {excerpt(data)}")
    return value


def count_or_none(value: object) -> int | None:
    """A count of tokens, or None where there is none.

    Raises:
        WireError: something else than a whole number that is not negative.
    """
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise WireError(f"{value!r} is not a number of tokens")
    return value


def error_text(error: object) -> str:
    """The message of an error object as servers send them, however they nest it."""
    if isinstance(error, dict):
        inner = error.get("message") or error.get("error") or error.get("detail")
        return error_text(inner) if inner is not None else str(error)
    return str(error)


def error_within(message: dict[str, Any]) -> str | None:
    """The text of the error that a message holds, whatever status it came with; None if none."""
    error = message.get("error")
    if error is None and message.get("object") == "error":
        error = message
    return None if error is None else error_text(error)


def error_of_body(body: bytes) -> str:
    """The message of an error answer: of its JSON, else its beginning."""
    try:
        return error_text(json_object(body))
    except WireError:
        return excerpt(body)


def excerpt(data: bytes, limit: int = 120) -> str:
    """The beginning of ``data`` as one line that can be shown."""
    text = bytes(data[:limit]).decode("utf-8", "replace")
    return " ".join(text.split()) + ("..." if len(data) > limit else "")
