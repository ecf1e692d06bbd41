"""A fake LLM server, in this process or as a program, that behaves as it is told.

::

    async with FakeServer(Behaviour(ttft_s=0.01)) as server:
        ... server.base_url ... server.seen ...

    python -m fairshare.testing.fake_server --port 8000 --behaviour stall --after 10
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import web

from fairshare.testing.behaviour import Behaviour, Kind
from fairshare.testing.fake_answers import (
    HUGE_LINE_BYTES,
    METRICS,
    Asked,
    BadRequestError,
    asked_openai,
    asked_tgi,
    error_body,
    events,
    whole,
)

_PAGE = "<html><body>It works!</body></html>"


@dataclass(slots=True)
class Seen:
    """One request as the server saw it; times are ``time.monotonic_ns()``, the truth of a test."""

    path: str
    body: dict[str, Any]
    received_ns: int
    token_ns: list[int] = field(default_factory=list)  # when each chunk with tokens was written
    token_counts: list[int] = field(default_factory=list)
    finished: bool = False


class FakeServer:
    """A server on a port of 127.0.0.1 (a free one by default) that behaves as told.

    ``seen`` holds every generation request in order of arrival; ``peak_running`` is the most that
    were served at once; ``peers`` the addresses of all connections that asked for something.
    ``on_death`` is called when a behaviour says that the server dies; by
    default it stops listening and breaks all its connections.
    """

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        model: str = "fake",
        api_key: str | None = None,
        on_death: Callable[[], None] | None = None,
    ) -> None:
        self.behaviour = behaviour or Behaviour()
        self.model = model
        self.seen: list[Seen] = []
        self.running = 0
        self.waiting = 0
        self.peak_running = 0
        self.peers: set[object] = set()
        self._changed = asyncio.Condition()
        self._host = host
        self._port = port
        self._api_key = api_key
        self._on_death = on_death or self._break_all
        self._prompt_tokens = 0
        self._generation_tokens = 0
        self._seats = (
            asyncio.Semaphore(self.behaviour.max_running) if self.behaviour.max_running else None
        )
        self._started_s = time.monotonic()
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is in use.
        """
        app = web.Application(client_max_size=1 << 28)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        for path in ("/v1/completions", "/v1/chat/completions", "/generate", "/generate_stream"):
            app.router.add_post(path, self._generate)
        # 5 s of keep-alive is what uvicorn, and so vLLM, has.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=5.0,
            shutdown_timeout=0.1,
            handler_cancellation=True,  # as in vLLM, a client that goes away ends its request
        )
        await self._runner.setup()
        assert self._runner.server is not None  # noqa: S101  (set up above)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._runner.server, self._host, self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Break what is in flight and stop listening."""
        self._break_all()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def when_running(self, count: int) -> None:
        """Return as soon as ``count`` requests are being served at once."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.running >= count)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _health(self, request: web.Request) -> web.Response:
        if self.behaviour.kind is Kind.HANG_HEALTH:
            await asyncio.Event().wait()
        starting = time.monotonic() - self._started_s < self.behaviour.ready_after_s
        ready = self.behaviour.kind is not Kind.NEVER_READY and not starting
        return web.Response(status=200 if ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        text = METRICS.format(
            model=self.model,
            running=self.running,
            waiting=self.waiting,
            prompt_tokens=self._prompt_tokens,
            generation_tokens=self._generation_tokens,
        )
        return web.Response(text=text)

    async def _models(self, request: web.Request) -> web.Response:
        if not self._authorised(request):
            return _json(error_body("Unauthorized", 401), 401)
        model = {"id": self.model, "object": "model", "max_model_len": 1 << 20}
        return _json({"object": "list", "data": [model]})

    def _authorised(self, request: web.Request) -> bool:
        if self._api_key is None or not request.path.startswith("/v1/"):
            return True
        return request.headers.get("Authorization") == f"Bearer {self._api_key}"

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        received_ns = time.monotonic_ns()
        if not self._authorised(request):
            return _json(error_body("Unauthorized", 401), 401)
        body = orjson.loads(await request.read())
        seen = Seen(request.path, body, received_ns)
        self.peers.add(request.transport and request.transport.get_extra_info("peername"))
        self.seen.append(seen)
        kind = self.behaviour.kind if len(self.seen) > self.behaviour.after else Kind.OK
        if kind in (Kind.HTTP_400, Kind.HTTP_500):
            status = 400 if kind is Kind.HTTP_400 else 500
            return _json(error_body(f"told to answer {status}", status), status)
        if kind is Kind.GARBAGE:
            return web.Response(text=_PAGE, content_type="text/html")
        try:
            asked = self._asked(request.path, body)
        except BadRequestError as error:
            return _json(error_body(str(error), error.status), error.status)
        self.waiting += 1
        try:
            if self._seats is not None:
                await self._seats.acquire()
        finally:
            self.waiting -= 1
        try:
            return await self._serve(request, asked, kind, seen)
        except ConnectionError:
            return web.Response(status=500)  # nobody will see it: the connection is gone
        finally:
            if self._seats is not None:
                self._seats.release()

    def _asked(self, path: str, body: dict[str, Any]) -> Asked:
        if path.startswith("/generate"):
            return asked_tgi(body, stream=path.endswith("_stream"))
        return asked_openai(body, chat=path.endswith("chat/completions"), model=self.model)

    async def _serve(
        self, request: web.Request, asked: Asked, kind: Kind, seen: Seen
    ) -> web.StreamResponse:
        self.running += 1
        self.peak_running = max(self.peak_running, self.running)
        self._prompt_tokens += asked.prompt_tokens
        try:
            async with self._changed:
                self._changed.notify_all()
            if asked.stream:
                return await self._stream(request, asked, kind, seen)
            behaviour = self.behaviour
            await asyncio.sleep(behaviour.ttft_s + behaviour.itl_s * (asked.max_tokens - 1))
            if kind is Kind.STALL:
                await asyncio.Event().wait()
            if kind in (Kind.DIE_AFTER_REQUESTS, Kind.DISCONNECT):
                self._break(request, kind)
            self._generation_tokens += asked.max_tokens
            seen.finished = True
            data = whole(asked, behaviour, kind)
            return web.Response(body=data, content_type="application/json")
        finally:
            self.running -= 1

    async def _stream(
        self, request: web.Request, asked: Asked, kind: Kind, seen: Seen
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        started_s = time.monotonic()
        made = 0
        for event in events(asked, self.behaviour, kind):
            delay_s = started_s + event.due_s - time.monotonic()
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            if event.tokens:
                if made >= max(1, asked.max_tokens // 2):
                    await self._spoil(request, response, kind)
                made += event.tokens
                self._generation_tokens += event.tokens
                seen.token_ns.append(time.monotonic_ns())
                seen.token_counts.append(event.tokens)
            if kind is Kind.HALF_LINES:
                half = len(event.data) // 2
                await response.write(event.data[:half])
                await asyncio.sleep(0.001)  # so that the halves travel apart
                await response.write(event.data[half:])
            else:
                await response.write(event.data)
        seen.finished = True
        await response.write_eof()
        return response

    async def _spoil(self, request: web.Request, response: web.StreamResponse, kind: Kind) -> None:
        """What a bad behaviour does in the middle of a stream."""
        if kind is Kind.STALL:
            await asyncio.Event().wait()
        elif kind in (Kind.DIE_AFTER_REQUESTS, Kind.DISCONNECT):
            self._break(request, kind)
        elif kind is Kind.GARBAGE_EVENTS:
            await response.write(b"data: " + _PAGE.encode() + b"\n\n")
        elif kind is Kind.HUGE_LINE:
            await response.write(b"data: " + b"x" * HUGE_LINE_BYTES)

    def _break(self, request: web.Request, kind: Kind) -> None:
        if kind is Kind.DIE_AFTER_REQUESTS:
            self._on_death()
        elif request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("told to break the connection")

    def _break_all(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None and self._runner.server is not None:
            for connection in self._runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


if __name__ == "__main__":
    from fairshare.testing.fake_program import main

    main()
