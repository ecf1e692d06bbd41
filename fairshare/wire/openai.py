"""OpenAI's ``/v1/completions`` and ``/v1/chat/completions``, with vLLM's extra fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from fairshare.spec.workload import Sampling
from fairshare.wire.answer import Answer, WireError, count_or_none, error_within, json_object

COMPLETIONS_PATH = "/v1/completions"
CHAT_PATH = "/v1/chat/completions"
Labels = Mapping[str, str | int | float]
THROTTLED = "throttled: "
"""So begins what a fair scheduler inside vLLM gives as the stop reason of what it refuses."""
_DONE = b"[DONE]"
_CHAT_TEXT = ("content", "reasoning_content", "reasoning", "tool_calls")


def completion_body(
    prompt: Sequence[int] | str,
    *,
    model: str,
    max_tokens: int,
    stream: bool,
    sampling: Sampling,
    extras: bool,
    priority: int | None = None,
    labels: Labels | None = None,
) -> bytes:
    """The body of a ``/v1/completions`` request.

    ``extras`` adds what only vLLM and its like understand: token ids and usage in each chunk,
    and output of exactly ``max_tokens`` where the sampling ignores the end of sequence.
    ``priority`` is vLLM's too, smaller first; it refuses one where it does not schedule by them.
    ``labels`` are what only vLLM brings to its scheduler, which alone reads them.
    """
    body = {"model": model, "prompt": prompt}
    return orjson.dumps(
        body | _common(max_tokens, stream, sampling, extras) | _of_vllm(priority, labels)
    )


def chat_body(
    text: str,
    *,
    model: str,
    max_tokens: int,
    stream: bool,
    sampling: Sampling,
    extras: bool,
    priority: int | None = None,
    labels: Labels | None = None,
) -> bytes:
    """The body of a ``/v1/chat/completions`` request of one user message."""
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return orjson.dumps(
        body | _common(max_tokens, stream, sampling, extras) | _of_vllm(priority, labels)
    )


def _common(max_tokens: int, stream: bool, sampling: Sampling, extras: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": sampling.temperature,
        "stream": stream,
    }
    if sampling.top_p is not None:
        body["top_p"] = sampling.top_p
    if sampling.top_k is not None:
        body["top_k"] = sampling.top_k
    if stream:
        body["stream_options"] = {"include_usage": True}
    if extras:
        if sampling.ignore_eos:
            body |= {"ignore_eos": True, "min_tokens": max_tokens}
        if stream:
            body["return_token_ids"] = True
            body["stream_options"]["continuous_usage_stats"] = True
    return body


def _of_vllm(priority: int | None, labels: Labels | None) -> dict[str, Any]:
    told = {"priority": priority, "vllm_xargs": labels}
    return {name: value for name, value in told.items() if value is not None}


class OpenAiReader:
    """Reads an answer of either endpoint, streamed or whole.

    How many tokens a chunk carries is told, in this order, by its token ids, by the growth of
    usage where every chunk states it, and by text that is not empty (then one). Text alone is no
    guide: byte-level tokenizers often give tokens without text, and role chunks hold no token.
    """

    __slots__ = ("_counted", "_usage_in_all", "answer")

    def __init__(self) -> None:
        self.answer = Answer()
        self._counted = 0  # tokens told so far
        self._usage_in_all: bool | None = None  # None until the first chunk with a choice

    def event(self, data: bytes) -> int:
        """Take the data of one stream event; return how many tokens it carries.

        Raises:
            WireError: it is not the protocol.
        """
        if data == _DONE:
            self.answer.done = True
            return 0
        try:
            message = orjson.loads(data)
        except orjson.JSONDecodeError:
            message = None
        if type(message) is not dict:
            message = json_object(data)  # says what is wrong with it
        try:
            return self._chunk(message)
        except (AttributeError, TypeError) as error:
            raise WireError(f"not a completion chunk ({error})") from None

    def whole(self, body: bytes) -> int:
        """Take an answer that was not streamed; return how many tokens it carries.

        Raises:
            WireError: it is not the protocol.
        """
        message = json_object(body)
        answer = self.answer
        answer.done = True
        try:
            if self._is_error(message):
                return 0
            choices = message.get("choices")
            if not choices or type(choices) is not list:
                raise WireError("an answer without choices")
            self._finish(choices[0])
            if (usage := message.get("usage")) is not None:
                self._usage(usage)
        except (AttributeError, TypeError) as error:
            raise WireError(f"not a completion ({error})") from None
        return answer.output_tokens or 0

    def _chunk(self, message: dict[str, Any]) -> int:
        usage = message.get("usage")
        choices = message.get("choices")
        if not choices:
            self._without_choices(message)
            return 0
        if type(choices) is not list:
            raise WireError("choices are not a list")
        choice = choices[0]
        if choice.get("finish_reason") is not None:
            self._finish(choice)
        if usage is not None:
            self._usage(usage)
        if self._usage_in_all is None or usage is None:
            self._usage_in_all = usage is not None and self._usage_in_all is not False
        ids = choice.get("token_ids")
        if type(ids) is list:
            tokens = len(ids)
        elif self._usage_in_all:
            tokens = max((self.answer.output_tokens or 0) - self._counted, 0)
        else:
            tokens = 1 if _has_text(choice) else 0
        if tokens:
            self._counted += tokens
        else:
            self.answer.empty_chunks += 1
        return tokens

    def _without_choices(self, message: dict[str, Any]) -> None:
        if self._is_error(message):
            return
        usage = message.get("usage")
        if usage is not None:
            self._usage(usage)
        elif type(message.get("choices")) is not list:
            raise WireError("a chunk with neither choices, usage nor error")

    def _finish(self, choice: dict[str, Any]) -> None:
        reason = choice.get("finish_reason")
        if reason is not None and type(reason) is not str:
            raise WireError(f"the finish reason is {reason!r}")
        self.answer.finish_reason = reason
        why = choice.get("stop_reason")
        if reason == "abort" and type(why) is str and why.startswith(THROTTLED):
            self.answer.throttled = why

    def _usage(self, usage: dict[str, Any]) -> None:
        answer = self.answer
        prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not (type(prompt) is type(output) is int and prompt >= 0 and output >= 0):
            prompt, output = count_or_none(prompt), count_or_none(output)
        answer.prompt_tokens, answer.output_tokens = prompt, output
        if answer.finish_reason is not None:
            answer.counted = answer.output_tokens is not None
        if (details := usage.get("prompt_tokens_details")) is not None:
            answer.cached_tokens = count_or_none(details.get("cached_tokens"))

    def _is_error(self, message: dict[str, Any]) -> bool:
        error = error_within(message)
        if self.answer.error is None:
            self.answer.error = error
        return error is not None


def _has_text(choice: dict[str, Any]) -> bool:
    if choice.get("text"):
        return True
    delta = choice.get("delta")
    return delta is not None and any(delta.get(key) for key in _CHAT_TEXT)
