"""vLLM-shaped answers, token by token: what each piece of a response looks like on the wire.

All that is the same for every token of an answer is serialised once, so that a token costs one
formatting of bytes and no JSON encoder.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

import orjson

from fairshare.virtual.requests import ParsedRequest
from fairshare.virtual.tokens import Answer, token_text
from fairshare.wire.openai import THROTTLED

_DONE = b"data: [DONE]\n\n"


class AnswerWriter:
    """Builds the answer to one request: stream events, or the whole body at the end."""

    def __init__(self, request: ParsedRequest, model_name: str, vocab_size: int) -> None:
        self.request = request
        self.tokens: list[int] = []
        self.cached_tokens = 0  # of the prompt; known with the first token
        self.finish_reason: str | None = None
        self._answer = Answer.to(request.prompt, request.seed, vocab_size)
        self.id = f"{'chatcmpl' if request.chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._head = {
            "id": self.id,
            "object": _object(request),
            "created": int(time.time()),
            "model": model_name,
        }
        self._prefix = b"data: " + orjson.dumps(self._head)[:-1] + b',"choices":[{"index":0,'

    def next_token(self, *, last: bool) -> bool:
        """Generate one token; ``last`` if the engine allows no more. Says whether it is over."""
        request = self.request
        token = self._answer.token(len(self.tokens))
        self.tokens.append(token)
        if token in request.stop_ids and len(self.tokens) >= request.min_tokens:
            self.finish_reason = "stop"
        elif last:
            self.finish_reason = "length"
        return self.finish_reason is not None

    def event(self) -> bytes:
        """The stream event, or events, for the newest token."""
        request = self.request
        token = self.tokens[-1]
        reason = b'"%b"' % self.finish_reason.encode() if self.finish_reason else b"null"
        text = token_text(token).encode()
        body = b'"delta":{"content":"%b"}' if request.chat else b'"text":"%b"'
        event = self._prefix + body % text
        event += b',"logprobs":null,"finish_reason":%b,"stop_reason":null' % reason
        first = len(self.tokens) == 1
        if request.return_token_ids:
            event += b',"token_ids":[%d]' % token
            if first and not request.chat:
                event += b',"prompt_token_ids":' + orjson.dumps(request.prompt)
        event += b"}]" + (self._usage_bytes() if request.continuous_usage else b"") + b"}\n\n"
        if first and request.chat:
            event = self._role_event() + event
        return event if self.finish_reason is None else event + self._ending()

    def refused(self, reason: str) -> bytes:
        """The only event of a stream that the scheduler ends at once, as vLLM's plugin has it."""
        choice = {"index": 0, "finish_reason": "abort", "stop_reason": THROTTLED + reason}
        empty: dict[str, Any] = {"delta": {}} if self.request.chat else {"text": ""}
        told = {**self._head, "choices": [choice | empty]}
        return b"data: " + orjson.dumps(told) + b"\n\n" + _DONE

    def failed(self, error: dict[str, Any]) -> bytes:
        """The last events of a stream whose engine died, as vLLM has them: a regular end."""
        return b"data: " + orjson.dumps(error) + b"\n\n" + _DONE

    def whole(self) -> bytes:
        """The body of an answer that is not streamed."""
        request = self.request
        text = "".join(map(token_text, self.tokens))
        choice: dict[str, Any] = {"index": 0}
        if request.chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        choice |= {"logprobs": None, "finish_reason": self.finish_reason, "stop_reason": None}
        if request.return_token_ids:
            choice |= {"token_ids": self.tokens, "prompt_token_ids": list(request.prompt)}
        return orjson.dumps({**self._head, "choices": [choice], "usage": self._usage()})

    def _role_event(self) -> bytes:
        usage = b""
        if self.request.continuous_usage:
            usage = b',"usage":' + orjson.dumps(self._usage(generated=0))
        return (
            self._prefix
            + b'"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
            + usage
            + b"}\n\n"
        )

    def _ending(self) -> bytes:
        if not self.request.include_usage:
            return _DONE
        last = {**self._head, "choices": [], "usage": self._usage()}
        return b"data: " + orjson.dumps(last) + b"\n\n" + _DONE

    def _usage(self, generated: int | None = None) -> dict[str, Any]:
        prompt = len(self.request.prompt)
        generated = len(self.tokens) if generated is None else generated
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + generated,
            "completion_tokens": generated,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }

    def _usage_bytes(self) -> bytes:
        prompt, generated = len(self.request.prompt), len(self.tokens)
        return (
            b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,'
            b'"prompt_tokens_details":{"cached_tokens":%d}}'
            % (prompt, prompt + generated, generated, self.cached_tokens)
        )


def _object(request: ParsedRequest) -> str:
    if not request.chat:
        return "text_completion"
    return "chat.completion.chunk" if request.stream else "chat.completion"
