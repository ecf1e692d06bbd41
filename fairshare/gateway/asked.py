"""What a request asks for: read from its body, and put into the body that the server gets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from fairshare.wire import tgi
from fairshare.wire.answer import AnswerReader
from fairshare.wire.openai import CHAT_PATH, COMPLETIONS_PATH, OpenAiReader

SCHEDULED_PATHS = (COMPLETIONS_PATH, CHAT_PATH, tgi.GENERATE_PATH, tgi.STREAM_PATH)
"""The paths of requests that generate; they wait in the queue."""
CHARACTERS_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4  # what chat templates put around one
TOKENS_PER_ATTACHMENT = 256  # an image, a sound: anything that is not text
COMPLETION_TOKENS = 16  # OpenAI's default for completions
MOST_TOKENS = 10_000_000  # of a single request; more is a slip, or mischief
MOST_OUTPUTS = 128
_WHOLE = re.compile(r"[0-9]{1,15}(?:\.0)?")


class BadRequestError(ValueError):
    """The body is not one that the server could answer."""


@dataclass(slots=True)
class Asked:
    """A request's body, as far as it matters to a scheduler.

    ``prompt_tokens`` is exact where the prompt came as token ids, else estimated;
    ``output_tokens`` is the most that all ``outputs`` together may have; ``usage`` and
    ``continuous`` say what the client wants to see of the server's counting.
    """

    body: dict[str, Any]
    openai: bool
    stream: bool
    prompt_tokens: int
    outputs: int
    output_tokens: int
    usage: bool = False
    continuous: bool = False

    def reader(self) -> AnswerReader:
        """A reader for the answer."""
        return OpenAiReader() if self.openai else tgi.TgiReader()

    def ask_for_usage(self, *, continuous: bool) -> bool:
        """Ask the server to count its tokens in a stream; whether that changed the body.

        ``continuous``: in each chunk, which tells nothing of several outputs together.
        """
        if not (self.openai and self.stream):
            return False
        wanted = {"include_usage": True}
        if continuous and self.outputs == 1:
            wanted["continuous_usage_stats"] = True
        given = self.body.get("stream_options") or {}
        if all(given.get(name) is True for name in wanted):
            return False
        self.body["stream_options"] = {**given, **wanted}
        return True

    def name_tenant(self, tenant: str | None) -> bool:
        """Put the tenant, or nobody, where the client may have put one; whether that changed it."""
        xargs = self.body.get("vllm_xargs")
        if not isinstance(xargs, dict):
            if tenant is None:
                return False
            xargs = {}
        kept = {name: value for name, value in xargs.items() if name != "tenant"}
        if tenant is not None:
            kept["tenant"] = tenant
        self.body["vllm_xargs"] = kept
        return kept != xargs

    def encoded(self) -> bytes:
        """The body as JSON."""
        return orjson.dumps(self.body)


def read_asked(path: str, raw: bytes, default_output_tokens: int) -> Asked:
    """Read the body of a request to one of the scheduled paths.

    Raises:
        BadRequestError: it is not a JSON object, or its shape is wrong.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequestError("the body must be a JSON object")
    try:
        if path in (tgi.GENERATE_PATH, tgi.STREAM_PATH):
            return _tgi(body, path == tgi.STREAM_PATH, default_output_tokens)
        return _openai(body, path == CHAT_PATH, default_output_tokens)
    except (AttributeError, TypeError) as error:
        raise BadRequestError(f"a field of the body is of the wrong type ({error})") from None


def with_priority(body: bytes, priority: int) -> bytes:
    """The JSON object with its priority; it must not hold one yet."""
    begun = b'{"priority":%d' % priority
    return begun + (b"}" if body == b"{}" else b"," + body[1:])


def _openai(body: dict[str, Any], chat: bool, default: int) -> Asked:
    if chat:
        tokens, prompts = _messages_tokens(body.get("messages")), 1
        most = body.get("max_completion_tokens") or body.get("max_tokens")
    else:
        tokens, prompts = _prompt_tokens(body.get("prompt"))
        most, default = body.get("max_tokens"), COMPLETION_TOKENS
    outputs = prompts * max(_outputs(body.get("n")), _outputs(body.get("best_of")))
    options = body.get("stream_options") or {}
    include = bool(options.get("include_usage"))
    return Asked(
        body=body,
        openai=True,
        stream=bool(body.get("stream")),
        prompt_tokens=tokens,
        outputs=outputs,
        output_tokens=outputs * _tokens(most, default),
        usage=include,
        continuous=include and bool(options.get("continuous_usage_stats")),
    )


def _tgi(body: dict[str, Any], stream: bool, default: int) -> Asked:
    parameters = body.get("parameters") or {}
    outputs = _outputs(parameters.get("best_of"))
    return Asked(
        body=body,
        openai=False,
        stream=stream,
        prompt_tokens=_text_tokens(body.get("inputs")),
        outputs=outputs,
        output_tokens=outputs * _tokens(parameters.get("max_new_tokens"), default),
    )


def _prompt_tokens(prompt: object) -> tuple[int, int]:
    """The tokens of all prompts, and how many prompts there are."""
    if not isinstance(prompt, list):
        return _text_tokens(prompt), 1
    if not prompt or isinstance(prompt[0], int):
        return len(prompt), 1
    tokens = sum(len(one) if isinstance(one, list) else _text_tokens(one) for one in prompt)
    return tokens, len(prompt)


def _messages_tokens(messages: object) -> int:
    if not isinstance(messages, list):
        return 0
    return sum(TOKENS_PER_MESSAGE + _content_tokens(message) for message in messages)


def _content_tokens(message: object) -> int:
    content = message.get("content") if isinstance(message, Mapping) else message
    if not isinstance(content, list):
        return _text_tokens(content)
    return sum(
        _text_tokens(part.get("text"))
        if isinstance(part, Mapping) and "text" in part
        else TOKENS_PER_ATTACHMENT
        for part in content
    )


def _text_tokens(text: object) -> int:
    return -(-len(text) // CHARACTERS_PER_TOKEN) if isinstance(text, str) else 0


def _tokens(value: object, default: int) -> int:
    # Servers take 5.0 and "5" for 5: who writes that is not to be charged for 1.
    if isinstance(value, float | str) and _WHOLE.fullmatch(str(value)):
        value = int(float(value))
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        return default  # the server will say what is wrong with it
    return min(value, MOST_TOKENS)


def _outputs(value: object) -> int:
    return min(_tokens(value, 1), MOST_OUTPUTS)
