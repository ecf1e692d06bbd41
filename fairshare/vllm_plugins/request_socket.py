"""Requests to the engine without HTTP: a private socket of the process that holds its client.

A connection carries one request at a time. A request is a frame: its length (4 bytes) and the JSON
that ``/v1/completions`` takes. The answer is the events which that endpoint streams, in frames of
their own: when the engine gave that output (8 bytes, nanoseconds of CLOCK_MONOTONIC, which all
processes of a machine share), the length (4 bytes), the event. Closing aborts the request.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import logging
import multiprocessing
import os
import struct
import time
from typing import Any, cast

SOCKET_VARIABLE = "FAIRSHARE_REQUEST_SOCKET"
_REQUEST_HEAD = struct.Struct(">I")  # length
_EVENT_HEAD = struct.Struct(">QI")  # time, length
_WRAPPED = "_fairshare_request_socket"
_SAMPLING = ("max_tokens", "min_tokens", "ignore_eos", "temperature", "top_p", "top_k")
# What has no effect here: there is one model, and an answer always tells its tokens and usage.
_IDLE = ("model", "stream_options", "return_token_ids")
_DONE = b"data: [DONE]\n\n"

_log = logging.getLogger("vllm.fairshare")


def register() -> None:
    """Listen as soon as there is an engine; called by vLLM in each of its processes.

    Only the first of them has the engine's client; its children have nothing to listen for.
    """
    if not os.environ.get(SOCKET_VARIABLE) or multiprocessing.parent_process() is not None:
        return
    try:
        from vllm.v1.engine.async_llm import AsyncLLM  # noqa: PLC0415

        _listen_once_made(AsyncLLM, os.environ[SOCKET_VARIABLE])
    except Exception:
        _log.warning("fairshare: there is no socket for requests", exc_info=True)


def _listen_once_made(owner: Any, path: str) -> None:
    """Let the making of an engine's client end with a socket, as far as a loop is running."""
    make = owner.__init__
    if getattr(make, _WRAPPED, False):
        return

    @functools.wraps(make)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        try:
            listening = listen(self, path)
            # The loop itself keeps no task alive.
            self._fairshare_listening = asyncio.get_running_loop().create_task(listening)
        except Exception:
            _log.warning("fairshare: there is no socket for requests", exc_info=True)

    setattr(wrapped, _WRAPPED, True)
    owner.__init__ = wrapped


async def listen(engine: Any, path: str) -> asyncio.Server | None:
    """Take requests for ``engine`` (an ``AsyncLLM``) at a socket of this path, for good."""
    try:
        desk = _Desk(engine)
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(lambda: _Connection(desk), path)
    except Exception:
        _log.warning("fairshare: there is no socket for requests", exc_info=True)
        return None


class _Desk:
    """Turns requests as they are written into calls of the engine."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        # What the server takes where a request says nothing.
        self._defaults = engine.model_config.get_diff_sampling_param()
        self._numbers = itertools.count()

    def generate(self, body: bytes) -> Any:
        """The engine's outputs for a request.

        Raises:
            ValueError: it asks for something that only the server can do.
        """
        from vllm.sampling_params import RequestOutputKind, SamplingParams  # noqa: PLC0415

        asked = json.loads(body)
        prompt = asked.pop("prompt")
        kind = RequestOutputKind.DELTA if asked.pop("stream") else RequestOutputKind.FINAL_ONLY
        priority = asked.pop("priority", 0)
        sampling = {name: asked.pop(name) for name in _SAMPLING if name in asked}
        if "vllm_xargs" in asked:  # whose it is, for a fair scheduler
            sampling["extra_args"] = asked.pop("vllm_xargs")
        if unknown := asked.keys() - set(_IDLE):
            raise ValueError(f"without HTTP there is no {', '.join(sorted(unknown))}")
        return self._engine.generate(
            {"prompt": prompt}
            if isinstance(prompt, str)
            else {"type": "token", "prompt_token_ids": prompt},
            SamplingParams(**{**self._defaults, **sampling}, output_kind=kind),
            f"fairshare-{next(self._numbers)}",
            priority=priority,
        )


class _Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk
        self._received = bytearray()
        self._transport: Any = None
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer a request once all of it is here."""
        self._received += data
        begin = _REQUEST_HEAD.size
        if len(self._received) < begin:
            return
        end = begin + _REQUEST_HEAD.unpack_from(self._received)[0]
        if len(self._received) < end:
            return
        body = bytes(self._received[begin:end])
        del self._received[:end]
        self._answering = asyncio.get_running_loop().create_task(self._answer(body))

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody listens any more: abort."""
        if self._answering is not None:
            self._answering.cancel()

    async def _answer(self, body: bytes) -> None:
        try:
            told = _Told()
            async for output in self._desk.generate(body):
                now_ns = time.monotonic_ns()
                self._send(now_ns, told.event(output) + (_DONE if output.finished else b""))
        except Exception as error:
            text = str(error) or type(error).__name__
            _log.warning("fairshare: a request failed: %s", text)
            self._send(time.monotonic_ns(), _event({"error": {"message": text}}) + _DONE)

    def _send(self, now_ns: int, event: bytes) -> None:
        self._transport.write(_EVENT_HEAD.pack(now_ns, len(event)) + event)


class _Told:
    """What an answer has told so far."""

    def __init__(self) -> None:
        self._prompt_tokens = 0
        self._cached_tokens: int | None = None
        self._output_tokens = 0

    def event(self, output: Any) -> bytes:
        """The event that tells of an output; later outputs leave out what the first one told."""
        choice = output.outputs[0]
        self._output_tokens += len(choice.token_ids)
        if output.prompt_token_ids is not None:
            self._prompt_tokens = len(output.prompt_token_ids)
        if self._cached_tokens is None:
            self._cached_tokens = output.num_cached_tokens
        told = {
            "token_ids": list(choice.token_ids),
            "finish_reason": choice.finish_reason,
            "stop_reason": choice.stop_reason,
        }
        usage = {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._output_tokens,
            "prompt_tokens_details": {"cached_tokens": self._cached_tokens},
        }
        return _event({"choices": [told], "usage": usage})


def _event(message: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps(message, separators=(",", ":")).encode()
