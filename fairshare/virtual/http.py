"""The HTTP side of the virtual server: OpenAI's routes, health and metrics, on aiohttp."""

from __future__ import annotations

import asyncio
import hmac
import math
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http import HttpVersion11

from fairshare.scheduling.policy import Refusal
from fairshare.virtual.answers import AnswerWriter
from fairshare.virtual.engine import Sequence
from fairshare.virtual.fates import OUT_OF_MEMORY, Doom, Fate
from fairshare.virtual.front_end import passing
from fairshare.virtual.gauges import Counters, exposition
from fairshare.virtual.prefixes import block_names
from fairshare.virtual.realtime import RealTimeEngine, Step, until
from fairshare.virtual.requests import RequestError, Served, parse_request
from fairshare.virtual.scheduling import sequence_of

# What real HTTP takes around us, on the way here and of the first token back: measured on two idle
# cores. It is part of the simulated front end's time.
_OWN_HTTP_S = 0.0015
_ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
_MAX_BODY_BYTES = 64 * 1024 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(eq=False, slots=True)
class _Open:
    """A request that is being answered. ``transport`` is None if the answer is not streamed.

    ``passes_s`` are spent in the simulated front end; what our own reading of the request takes is
    part of it. ``lost_s`` is what the simulation had given up on when it was received.
    """

    writer: AnswerWriter
    sequence: Sequence
    received_s: float
    passes_s: float
    lost_s: float
    done: asyncio.Event = field(default_factory=asyncio.Event)
    transport: asyncio.WriteTransport | None = None
    refusal: Refusal | None = None
    chunked: bool = True
    failed: bool = False

    def simulated_s(self, due_s: float, lost_s: float) -> float:
        """Simulated seconds from its receipt to a moment, of which some may have been lost."""
        return due_s - self.received_s - (lost_s - self.lost_s)


class Frontend:
    """Takes requests to the engine and tokens back to the connections."""

    def __init__(
        self, served: Served, *, front_end_s: float, api_key: str | None, doom: Doom | None = None
    ) -> None:
        self.served = served
        self.counters = Counters()
        self._front_end_s = front_end_s
        self._api_key = api_key
        self._doom = doom
        self.broken = asyncio.Event()
        self.cause = ""
        self._open: dict[str, _Open] = {}
        self._arriving = 0
        self._engine: RealTimeEngine | None = None

    @property
    def engine(self) -> RealTimeEngine:
        """The engine behind this front end."""
        if self._engine is None:
            raise RuntimeError("no engine is attached")
        return self._engine

    def attach(self, engine: RealTimeEngine) -> None:
        """Serve from ``engine``, whose steps must come to :meth:`deliver`."""
        self._engine = engine

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[self._guard])
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    def deliver(self, step: Step) -> None:
        """Write a step's tokens, one write for each connection.

        Straight to the transport and not through the response: its ``write`` would make every
        stream wait for the slowest reader. What a reader does not take is buffered; an answer is
        small and ends.
        """
        now_s = time.monotonic()
        for sequence in step.emitted:
            request = self._open.get(sequence.id)
            if request is None:
                continue  # the client has gone since the step began
            if not request.writer.tokens:
                self._first_token(request, now_s, step.due_s)
            self.counters.generation_tokens += 1
            request.writer.cached_tokens = sequence.cached_tokens
            over = request.writer.next_token(
                last=len(request.writer.tokens) + 1 >= sequence.max_output_tokens
            )
            if request.transport is not None:
                event = request.writer.event()
                if request.chunked:
                    event = b"%x\r\n%b\r\n" % (len(event), event)
                request.transport.write(event)
            if over:
                self.counters.finished[request.writer.finish_reason or ""] += 1
                self.counters.prompt_tokens += sequence.prompt_tokens
                self.counters.cached_tokens += sequence.cached_tokens
                self._ended(request, now_s, step.due_s)
                self.engine.remove(sequence, answered=True)
                del self._open[sequence.id]
                request.done.set()
        for sequence, refusal in step.dropped:
            if (request := self._open.get(sequence.id)) is not None:
                del self._open[sequence.id]
                request.refusal = refusal
                request.done.set()
        if self._doom and self.counters.generation_tokens >= self._doom.after_tokens:
            self._meet(self._doom.fate)

    def _first_token(self, request: _Open, now_s: float, due_s: float) -> None:
        dilation = self.engine.dilation
        dilation.ttft_s += now_s - request.received_s
        dilation.ttft_simulated_s += request.simulated_s(due_s, dilation.lost_s)

    def _ended(self, request: _Open, now_s: float, due_s: float) -> None:
        dilation = self.engine.dilation
        dilation.e2e_s += now_s - request.received_s
        dilation.e2e_simulated_s += request.simulated_s(due_s, dilation.lost_s)

    def _meet(self, fate: Fate) -> None:
        if fate is Fate.DIES:
            os._exit(1)  # as a crash does: no clean-up, streams break off
        self.engine.halt()
        if fate is Fate.HANGS:
            return
        self.cause = OUT_OF_MEMORY if fate is Fate.RUNS_OUT else _ENGINE_DEAD
        self.broken.set()
        for request in self._open.values():
            request.failed = True
            request.done.set()
        self._open.clear()

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, chat=False)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, chat=True)

    async def _serve(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        received_s = time.monotonic()
        try:
            if self.broken.is_set():
                raise _dead()
            body: Any = orjson.loads(await request.read())
            parsed = parse_request(body, self.served, chat=chat)
        except orjson.JSONDecodeError as error:
            refusal = RequestError(f"the body is not JSON: {error}")
            return web.json_response(refusal.body, status=400)
        except RequestError as error:
            return web.json_response(error.body, status=error.status)
        writer = AnswerWriter(parsed, self.served.model_name, self.served.vocab_size)
        sequence = sequence_of(
            writer.id, len(parsed.prompt), parsed.max_tokens, body, time.monotonic()
        )
        if self.served.prefix_caching:
            sequence.prefix = block_names(parsed.prompt)
        passes_s = self._front_end_s * passing(parsed.prompt) - _OWN_HTTP_S
        lost_s = self.engine.dilation.lost_s
        entry = _Open(writer, sequence, received_s, passes_s, lost_s)
        if not parsed.stream:
            await self._answered(entry)
            return _whole(entry)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        entry.chunked = request.version >= HttpVersion11
        if entry.chunked:
            response.enable_chunked_encoding()
        await response.prepare(request)
        entry.transport = request.transport
        await self._answered(entry)
        if entry.refusal is not None:  # the status has been sent
            await response.write(writer.refused(entry.refusal.reason))
        if entry.failed:
            await response.write(writer.failed(_dead().body))
        await response.write_eof()
        return response

    async def _answered(self, entry: _Open) -> None:
        """Run a request to its end; leaves nothing in the engine if the client goes first."""
        arrives_s = entry.received_s + entry.passes_s
        self._arriving += 1
        try:
            await until(arrives_s)
            if self.broken.is_set():
                entry.failed = True
                return
            self._open[entry.sequence.id] = entry
            entry.refusal = await self.engine.add(entry.sequence, arrives_s)
        except asyncio.CancelledError:
            self._forget(entry)
            raise
        finally:
            self._arriving -= 1
        try:
            if entry.refusal is None:
                await entry.done.wait()
        finally:
            self._forget(entry)

    def _forget(self, entry: _Open) -> None:
        if self._open.pop(entry.sequence.id, None) is not None:
            self.engine.remove(entry.sequence, answered=False)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=503 if self.broken.is_set() else 200)

    async def _models(self, _: web.Request) -> web.Response:
        model = {
            "id": self.served.model_name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "fairshare",
            "root": self.served.root,
            "parent": None,
            "max_model_len": self.served.max_model_len,
        }
        return web.json_response({"object": "list", "data": [model]})

    async def _metrics(self, _: web.Request) -> web.Response:
        engine = self.engine
        text = exposition(
            self.served, engine.engine, self.counters, engine.dilation, self._arriving
        )
        return web.Response(text=text)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._api_key and request.path.startswith("/v1"):
            scheme, _, key = request.headers.get("Authorization", "").partition(" ")
            matches = hmac.compare_digest(key.encode(), self._api_key.encode())
            if scheme.lower() != "bearer" or not matches:
                return web.json_response({"error": "Unauthorized"}, status=401)
        return await handler(request)


def _whole(entry: _Open) -> web.Response:
    """The answer to a request that is not streamed."""
    if entry.refusal is not None:
        return _refused(entry.refusal)
    if entry.failed:
        return web.json_response(_dead().body, status=500)
    return web.Response(body=entry.writer.whole(), content_type="application/json")


def _refused(refusal: Refusal) -> web.Response:
    headers = {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(refusal.retry_after_s))
    return web.json_response(_refusal(refusal).body, status=429, headers=headers)


def _dead() -> RequestError:
    """What vLLM's front end says of a request whose engine has died."""
    return RequestError(_ENGINE_DEAD, status=500, kind="InternalServerError")


def _refusal(refusal: Refusal) -> RequestError:
    """What a request gets that the scheduling policy did not let in."""
    return RequestError(refusal.reason, status=429, kind="TooManyRequests")
