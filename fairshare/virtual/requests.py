"""What the virtual server understands of an OpenAI request, and vLLM's refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairshare.virtual.tokens import encode

_DEFAULT_COMPLETION_TOKENS = 16
_NOT_SIMULATED = ("echo", "logprobs", "best_of", "stop", "suffix")


class RequestError(Exception):
    """A request that is refused: HTTP status, and vLLM's error object."""

    def __init__(
        self, message: str, *, status: int = 400, kind: str = "BadRequestError", param: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {"message": message, "type": kind, "param": param or None, "code": status}
        }


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """One request, checked. ``max_tokens`` is already cut to what the context allows."""

    prompt: Sequence[int]
    max_tokens: int
    min_tokens: int
    stop_ids: frozenset[int]
    seed: int
    chat: bool
    stream: bool
    include_usage: bool
    continuous_usage: bool
    return_token_ids: bool


@dataclass(frozen=True, slots=True)
class Served:
    """What requests are checked against."""

    model_name: str
    vocab_size: int
    max_model_len: int
    eos_token_ids: tuple[int, ...]
    root: str = ""
    kv_bytes_per_token: int = 0
    prefix_caching: bool = True


def parse_request(body: Any, served: Served, *, chat: bool) -> ParsedRequest:
    """The request in a JSON body.

    Raises:
        RequestError: it is refused.
    """
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    if body.get("model") not in (None, served.model_name):
        raise RequestError(
            f"The model `{body['model']}` does not exist.",
            status=404,
            kind="NotFoundError",
            param="model",
        )
    if body.get("n") not in (None, 1):
        raise RequestError("the virtual server answers once: n must be 1", param="n")
    for name in _NOT_SIMULATED:
        if body.get(name) not in (None, False, [], ""):
            raise RequestError(f"the virtual server does not simulate {name}", param=name)
    prompt = _chat_prompt(body, served) if chat else _prompt(body.get("prompt"), served)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise RequestError("stream_options must be an object", param="stream_options")
    ending = frozenset(_token_ids(body.get("stop_token_ids") or [], served, "stop_token_ids"))
    return ParsedRequest(
        prompt=prompt,
        max_tokens=_max_tokens(body, len(prompt), served, chat=chat),
        min_tokens=_integer(body, "min_tokens", 0, least=0),
        stop_ids=ending if body.get("ignore_eos") else ending | set(served.eos_token_ids),
        seed=_integer(body, "seed", 0, least=0),
        chat=chat,
        stream=bool(body.get("stream")),
        include_usage=bool(options.get("include_usage")),
        continuous_usage=bool(options.get("continuous_usage_stats")),
        return_token_ids=bool(body.get("return_token_ids")),
    )


def _prompt(prompt: Any, served: Served) -> list[int]:
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return _checked(encode(prompt, served.vocab_size), served)
    if isinstance(prompt, list):
        if any(isinstance(item, str | list) for item in prompt):
            raise RequestError("the virtual server takes one prompt a request", param="prompt")
        return _checked(_token_ids(prompt, served, "prompt"), served)
    raise RequestError("prompt must be text or a list of token ids", param="prompt")


def _chat_prompt(body: Mapping[str, Any], served: Served) -> list[int]:
    """The messages' text; the simulated model has no chat template, so nothing is added."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages must be a list that is not empty", param="messages")
    texts: list[str] = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            content = " ".join(
                str(part.get("text", "")) for part in content if isinstance(part, dict)
            )
        if not isinstance(content, str):
            raise RequestError("every message needs a content of text", param="messages")
        texts.append(content)
    return _checked(encode(" ".join(texts), served.vocab_size), served)


def _checked(prompt: list[int], served: Served) -> list[int]:
    if not prompt:
        raise RequestError("The decoder prompt cannot be empty", param="prompt")
    if len(prompt) >= served.max_model_len:
        raise RequestError(
            f"This model's maximum context length is {served.max_model_len} tokens. However, your "
            f"prompt contains {len(prompt)} input tokens, which exceeds this limit even without "
            "any output tokens. Please reduce the length of the input prompt.",
            param="input_tokens",
        )
    return prompt


def _token_ids(ids: Any, served: Served, param: str) -> list[int]:
    if not isinstance(ids, list) or any(type(token) is not int for token in ids):
        raise RequestError(f"{param} must be a list of token ids", param=param)
    for token in (min(ids), max(ids)) if ids else ():
        if not 0 <= token < served.vocab_size:
            raise RequestError(f"Token id {token} is out of vocabulary", param=param)
    return ids


def _max_tokens(body: Mapping[str, Any], prompt_tokens: int, served: Served, *, chat: bool) -> int:
    """What is asked for, cut silently to the context as vLLM does."""
    room = served.max_model_len - prompt_tokens
    default = room if chat else _DEFAULT_COMPLETION_TOKENS
    name = "max_completion_tokens" if chat and "max_completion_tokens" in body else "max_tokens"
    return min(_integer(body, name, default, least=1), room)


def _integer(body: Mapping[str, Any], name: str, default: int, *, least: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or value < least:
        raise RequestError(f"{name} must be at least {least}, got {value}.", param=name)
    return value
