"""What the fake server says, event by event, in the shapes of vLLM 0.32 and TGI 3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from fairshare.testing.behaviour import Behaviour, Kind

DEFAULT_MAX_TOKENS = 16
HUGE_LINE_BYTES = 8 << 20
# What an engine's metrics page says of the state here, and of what cannot change here.
METRICS = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="{model}"}} {running}
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{engine="0",model_name="{model}"}} {waiting}
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{engine="0",model_name="{model}"}} 0.0
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{{engine="0",model_name="{model}"}} 0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{{engine="0",model_name="{model}"}} {prompt_tokens}
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{{engine="0",model_name="{model}"}} {generation_tokens}
"""


class BadRequestError(ValueError):
    """What a server answers with 4xx; ``status`` says which."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, whichever protocol it came by."""

    api: str  # "completions", "chat" or "tgi"
    stream: bool
    prompt_tokens: int
    max_tokens: int
    token_ids: bool = False
    usage: bool = False
    continuous: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One event: when it is due after the request's arrival, its bytes, and its tokens."""

    due_s: float
    data: bytes
    tokens: int = 0


def asked_openai(body: Mapping[str, Any], *, chat: bool, model: str) -> Asked:
    """Read the body of an OpenAI request, as strictly as vLLM does.

    Raises:
        BadRequestError: the model is not served, or there is no prompt or no token to make.
    """
    if body.get("model") != model:
        raise BadRequestError(f"The model `{body.get('model')}` does not exist.", status=404)
    if chat:
        prompt = " ".join(str(message.get("content", "")) for message in body.get("messages", ()))
    else:
        prompt = body.get("prompt") or ""
    if not prompt:
        raise BadRequestError("the prompt is empty")
    max_tokens = int(body.get("max_tokens", DEFAULT_MAX_TOKENS))
    if max_tokens < 1:
        raise BadRequestError(f"max_tokens must be at least 1, got {max_tokens}.")
    options = body.get("stream_options") or {}
    return Asked(
        api="chat" if chat else "completions",
        stream=bool(body.get("stream")),
        prompt_tokens=len(prompt.encode()) if isinstance(prompt, str) else len(prompt),
        max_tokens=max_tokens,
        token_ids=bool(body.get("return_token_ids")),
        usage=bool(options.get("include_usage")),
        continuous=bool(options.get("continuous_usage_stats")),
    )


def asked_tgi(body: Mapping[str, Any], *, stream: bool) -> Asked:
    """Read the body of a TGI request.

    Raises:
        BadRequestError: the input is empty.
    """
    text = body.get("inputs") or ""
    if not text:
        raise BadRequestError("`inputs` cannot be empty", status=422)
    parameters = body.get("parameters") or {}
    return Asked(
        api="tgi",
        stream=stream,
        prompt_tokens=len(text.encode()),
        max_tokens=int(parameters.get("max_new_tokens", DEFAULT_MAX_TOKENS)),
    )


def events(asked: Asked, behaviour: Behaviour, kind: Kind) -> Iterator[Event]:
    """The events of a streamed answer; those that break a connection end early."""
    if asked.api == "tgi":
        yield from _tgi_events(asked, behaviour, kind)
        return
    if kind is Kind.NO_USAGE:
        asked = replace(asked, usage=False, continuous=False)
    yield from _opening(asked, behaviour)
    if kind is Kind.ABORT:
        yield Event(behaviour.ttft_s, _chunk(asked, behaviour, 0, 0, "abort"))
    else:
        yield from _token_events(asked, behaviour, kind)
    last_s = _due_s(behaviour, asked.max_tokens - 1)
    if kind is Kind.ERROR_THEN_DONE:
        yield Event(last_s, _event(error_body("EngineCore encountered an issue.", 500)))
    elif asked.usage and kind is not Kind.ABORT:
        final = _envelope(asked) | {"choices": [], "usage": _usage(asked, behaviour, None)}
        yield Event(last_s, _event(final))
    yield Event(last_s, b"data: [DONE]\n\n")


def whole(asked: Asked, behaviour: Behaviour, kind: Kind) -> bytes:
    """The body of an answer that is not streamed."""
    made = 0 if kind is Kind.ABORT else asked.max_tokens
    text, prompt = "x" * made, asked.prompt_tokens
    if kind is Kind.ERROR_THEN_DONE:
        return orjson.dumps(error_body("EngineCore encountered an issue.", 500))
    finish = None if kind is Kind.NO_FINISH else "abort" if kind is Kind.ABORT else "length"
    if asked.api == "tgi":
        details = {"finish_reason": finish, "generated_tokens": made, "input_length": prompt}
        body: dict[str, Any] = {"generated_text": text}
        return orjson.dumps(body if kind is Kind.NO_USAGE else body | {"details": details})
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
    choice |= {"message": {"content": text}} if asked.api == "chat" else {"text": text}
    body = _envelope(asked) | {"choices": [choice]}
    if kind is not Kind.NO_USAGE:
        body["usage"] = _usage(asked, behaviour, made)
    return orjson.dumps(body)


def error_body(message: str, code: int) -> dict[str, Any]:
    """An error as vLLM words it."""
    return {"error": {"message": message, "type": "Error", "param": None, "code": code}}


def _opening(asked: Asked, behaviour: Behaviour) -> Iterator[Event]:
    """What comes before the first token: a role, chunks without a token."""
    if asked.api == "chat":
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        yield Event(0.0, _event(_with_usage(_envelope(asked, choice), asked, behaviour, 0)))
    for _ in range(behaviour.empty_chunks):
        yield Event(0.0, _chunk(asked, behaviour, 0, 0, None))


def _token_events(asked: Asked, behaviour: Behaviour, kind: Kind) -> Iterator[Event]:
    made = 0
    half = max(1, asked.max_tokens // 2)
    broken = kind in (Kind.ERROR_THEN_DONE, Kind.NO_FINISH)
    while made < asked.max_tokens and not (broken and made >= half):
        tokens = min(behaviour.tokens_per_chunk, asked.max_tokens - made)
        made += tokens
        finish = "length" if made == asked.max_tokens and not broken else None
        chunk = _chunk(asked, behaviour, tokens, made, finish)
        yield Event(_due_s(behaviour, made - 1), chunk, tokens)


def _tgi_events(asked: Asked, behaviour: Behaviour, kind: Kind) -> Iterator[Event]:
    last = asked.max_tokens - 1
    for index in range(asked.max_tokens):
        due_s = _due_s(behaviour, index)
        if kind in (Kind.ERROR_THEN_DONE, Kind.ABORT) and index == asked.max_tokens // 2:
            error = {"error": "Request failed during generation", "error_type": "generation"}
            yield Event(due_s, _event(error, b"data:"))
            return
        if kind is Kind.NO_FINISH and index == last:
            return
        details = None
        if index == last and kind is not Kind.NO_USAGE:
            details = {
                "finish_reason": "length",
                "generated_tokens": asked.max_tokens,
                "seed": None,
                "input_length": asked.prompt_tokens,
            }
        body = {
            "index": index + 1,
            "token": {"id": 100 + index, "text": "x", "logprob": -0.5, "special": False},
            "generated_text": "x" * asked.max_tokens if index == last else None,
            "details": details,
        }
        yield Event(due_s, _event(body, b"data:"), 1)


def _due_s(behaviour: Behaviour, token: int) -> float:
    return behaviour.ttft_s + token * behaviour.itl_s


def _chunk(asked: Asked, behaviour: Behaviour, tokens: int, made: int, finish: str | None) -> bytes:
    text = "" if behaviour.silent_text else "x" * tokens
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "stop_reason": None}
    choice |= {"delta": {"content": text}} if asked.api == "chat" else {"text": text}
    if asked.token_ids:
        choice["token_ids"] = list(range(100, 100 + tokens))
    return _event(_with_usage(_envelope(asked, choice), asked, behaviour, made))


def _with_usage(
    body: dict[str, Any], asked: Asked, behaviour: Behaviour, made: int
) -> dict[str, Any]:
    return body | {"usage": _usage(asked, behaviour, made)} if asked.continuous else body


def _usage(asked: Asked, behaviour: Behaviour, made: int | None) -> dict[str, Any]:
    """Usage so far; without ``made`` the final one, which alone tells of cached tokens."""
    tokens = asked.max_tokens if made is None else made
    usage: dict[str, Any] = {
        "prompt_tokens": asked.prompt_tokens,
        "total_tokens": asked.prompt_tokens + tokens,
        "completion_tokens": tokens,
    }
    if made is None or not asked.stream:
        usage["prompt_tokens_details"] = {"cached_tokens": behaviour.cached_tokens}
    return usage


def _envelope(asked: Asked, *choices: dict[str, Any]) -> dict[str, Any]:
    kind = "chat.completion.chunk" if asked.api == "chat" else "text_completion"
    return {"id": "cmpl-1", "object": kind, "created": 0, "model": "m", "choices": list(choices)}


def _event(body: Mapping[str, Any], prefix: bytes = b"data: ") -> bytes:
    return prefix + orjson.dumps(body) + b"\n\n"
