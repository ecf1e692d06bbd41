"""Text Generation Inference's ``/generate`` and ``/generate_stream``."""

from __future__ import annotations

from typing import Any

import orjson

from fairshare.spec.workload import Sampling
from fairshare.wire.answer import Answer, WireError, count_or_none, error_within, json_object

GENERATE_PATH = "/generate"
STREAM_PATH = "/generate_stream"
_FINISHES = {"length": "length", "eos_token": "stop", "stop_sequence": "stop"}


def generate_body(text: str, *, max_tokens: int, sampling: Sampling) -> bytes:
    """The body of a request to either endpoint.

    TGI refuses a temperature of 0 and a top_p of 1: greedy decoding is their absence. It cannot
    be told to ignore the end of sequence.
    """
    parameters: dict[str, Any] = {"max_new_tokens": max_tokens, "details": True}
    if sampling.temperature > 0:
        parameters |= {"do_sample": True, "temperature": sampling.temperature}
    if sampling.top_p is not None and sampling.top_p < 1:
        parameters["top_p"] = sampling.top_p
    if sampling.top_k is not None:
        parameters["top_k"] = sampling.top_k
    return orjson.dumps({"inputs": text, "parameters": parameters})


class TgiReader:
    """Reads an answer of either endpoint; each stream event with a token carries one."""

    def __init__(self) -> None:
        self.answer = Answer()

    def event(self, data: bytes) -> int:
        """Take the data of one stream event; return how many tokens it carries (0 or 1).

        Special tokens (the end of sequence) are tokens too: TGI counts them as generated.

        Raises:
            WireError: it is not the protocol.
        """
        message = json_object(data)
        if self._is_error(message):
            return 0
        token = message.get("token")
        details = message.get("details")
        if token is None and details is None:
            raise WireError("a stream event with neither token, details nor error")
        if token is not None and type(token) is not dict:
            raise WireError(f"the token is {token!r}")
        if details is not None:
            self._details(details)
        if token is None:
            self.answer.empty_chunks += 1
            return 0
        return 1

    def whole(self, body: bytes) -> int:
        """Take an answer of ``/generate``; return how many tokens it carries.

        Raises:
            WireError: it is not the protocol.
        """
        message = json_object(body)
        self.answer.done = True
        if self._is_error(message):
            return 0
        if "generated_text" not in message:
            raise WireError("an answer without generated_text")
        if (details := message.get("details")) is not None:
            self._details(details)
        return self.answer.output_tokens or 0

    def _details(self, details: object) -> None:
        if type(details) is not dict:
            raise WireError(f"the details are {details!r}")
        answer = self.answer
        reason = details.get("finish_reason")
        if reason is not None and type(reason) is not str:
            raise WireError(f"the finish reason is {reason!r}")
        answer.finish_reason = None if reason is None else _FINISHES.get(reason, reason)
        answer.output_tokens = count_or_none(details.get("generated_tokens"))
        answer.counted = answer.output_tokens is not None
        answer.prompt_tokens = count_or_none(details.get("input_length"))
        prefill = details.get("prefill")
        if answer.prompt_tokens is None and type(prefill) is list and prefill:
            answer.prompt_tokens = len(prefill)
        answer.done = True

    def _is_error(self, message: dict[str, Any]) -> bool:
        error = error_within(message)
        if self.answer.error is None:
            self.answer.error = error
        return error is not None
