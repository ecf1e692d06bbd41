"""The gateway as a server: it listens, looks after itself each second, and stops in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler
from prometheus_client import CONTENT_TYPE_LATEST

from fairshare.errors import PreflightError
from fairshare.gateway.admission import Admission, Bounds, Decision, Refused, Ticket
from fairshare.gateway.event_log import FORMAT_VERSION, EventLog
from fairshare.gateway.identity import Keys
from fairshare.gateway.proxy import DRAINING, Proxy
from fairshare.gateway.settings import GatewaySettings
from fairshare.gateway.tally import MetricsPage, Tally
from fairshare.gateway.upstream import Upstream, UpstreamError
from fairshare.gateway.window import AdaptiveWindow, FixedWindow
from fairshare.scheduling.guarded import Guarded
from fairshare.scheduling.policies import policy_for
from fairshare.wire.exposition import ServerMetrics, parse_metrics

OWN_PATHS = "/gateway/"
TICK_S = 0.25
TICKS_PER_LOOK = 4
MOST_COUNTERS = 1000
"""So many tenants' counters are in a line of the log."""
_HEAD_TIMEOUT_S = 30.0
_PROBE_TIMEOUT_S = 5.0
_BACKLOG = 4096
_log = logging.getLogger("fairshare.gateway")


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether it is not about bytes that a client sent: what it quotes of them may be a key."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, (HttpProcessingError, web.RequestPayloadError))


_log.addFilter(_is_ours)


class Gateway:
    """A gateway that listens while it is entered; ``port`` is where."""

    def __init__(self, settings: GatewaySettings, keys: Keys) -> None:
        self.settings = settings
        self.port = settings.port
        self._upstream = Upstream(settings.upstream, connect_timeout_s=settings.connect_timeout_s)
        window = AdaptiveWindow() if settings.window is None else FixedWindow(settings.window)
        asked = policy_for(settings.policy, settings.policy_options, settings.terms)
        self._policy = Guarded(asked, self._policy_failed)
        bounds = Bounds(
            settings.max_queued,
            settings.max_queued_per_tenant,
            settings.max_queued_bytes,
            settings.ttl_s,
            settings.window_tokens,
        )
        self._tally = Tally()
        self.admission = Admission(self._policy, window, bounds, self._tell)
        self._proxy = Proxy(settings, keys, self._upstream, self.admission, self._tally)
        self._page = MetricsPage(self._tally, self.admission)
        self._log = None if settings.event_log is None else EventLog(settings.event_log)
        self._runner: web.ServerRunner | None = None
        self._listener: asyncio.Server | None = None
        self._care: asyncio.Task[None] | None = None
        self._quiet = asyncio.Event()
        self._silent: dict[RequestHandler, asyncio.TimerHandle] = {}
        self._usage_known = settings.continuous_usage is not None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        server = web.Server(
            self._handle,
            request_factory=partial(
                web.BaseRequest, loop=loop, client_max_size=self.settings.max_body_bytes
            ),
            handler_cancellation=True,  # a client that goes away withdraws its request
            access_log=None,
            logger=_log,
            keepalive_timeout=75.0,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        host, port = self.settings.host, self.settings.port
        try:
            self._listener = await loop.create_server(
                self._new_connection, host, port, backlog=_BACKLOG
            )
        except OSError as error:
            await self._runner.cleanup()
            raise PreflightError(
                f"cannot listen on {host}:{port}: {error.strerror or error}",
                hint="choose another with --port, or 0 for any that is free",
            ) from None
        self.port = self._listener.sockets[0].getsockname()[1]
        self._note_start()
        await self._look()
        self._care = asyncio.create_task(self._take_care(), name="gateway care")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._care is not None:
            self._care.cancel()
            await asyncio.wait({self._care})
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._upstream.close()
        if self._log is not None:
            self._log.write("stopped", time.monotonic())
            self._log.flush()
            self._log.close()

    async def drain(self, limit_s: float) -> None:
        """Refuse what waits and what comes; return once nothing runs, or after ``limit_s``."""
        self._proxy.draining = True
        self.admission.refuse_all(DRAINING, time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self.admission.outstanding:
                    self._quiet.clear()  # it was set each time that nothing ran
                    await self._quiet.wait()

    def _new_connection(self) -> RequestHandler:
        """A connection that must say what it wants before long."""
        assert self._runner is not None  # noqa: S101  (set up before anybody listens)
        assert self._runner.server is not None  # noqa: S101
        handler: RequestHandler = self._runner.server()
        loop = asyncio.get_running_loop()
        self._silent[handler] = loop.call_later(_HEAD_TIMEOUT_S, self._end_silent, handler)
        return handler

    def _end_silent(self, handler: RequestHandler) -> None:
        self._silent.pop(handler, None)
        if handler.transport is not None:
            handler.transport.abort()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if (timer := self._silent.pop(request.protocol, None)) is not None:
            timer.cancel()
        if request.path.startswith(OWN_PATHS):
            return self._own(request.path)
        return await self._proxy.handle(request)

    def _own(self, path: str) -> web.Response:
        if path == OWN_PATHS + "metrics":
            return web.Response(
                body=self._page.text(), headers={"Content-Type": CONTENT_TYPE_LATEST}
            )
        if path != OWN_PATHS + "health":
            return web.Response(status=404)
        proxy, admission = self._proxy, self.admission
        state = {
            "status": "draining" if proxy.draining else "ok",
            "policy": self.settings.policy,
            "policy_error": self._policy.error,
            "window": admission.window.size,
            "outstanding": admission.outstanding,
            "queued": admission.waiting,
            "upstream_error": proxy.upstream_error,
        }
        status = 503 if proxy.draining else 200
        return web.Response(
            status=status, body=orjson.dumps(state), content_type="application/json"
        )

    def _tell(
        self, decision: Decision, ticket: Ticket, now_s: float, refused: Refused | None
    ) -> None:
        self._tally.note(decision, ticket, now_s, refused)
        if not self.admission.outstanding:
            self._quiet.set()
        if self._log is None:
            return
        request, admission = ticket.request, self.admission
        facts = {
            "request": request.id,
            "tenant": request.tenant,
            "prompt_tokens": request.prompt_tokens,
            "cached_tokens": request.cached_tokens,
            "max_output_tokens": request.max_output_tokens,
            "output_tokens": request.produced,
            "queued": admission.waiting,
            "running": admission.outstanding,
            "window": admission.window.size,
            "counter": admission.policy.counters().get(request.tenant),
        }
        if request.interaction is not None:
            facts |= {"app": request.app, "interaction": request.interaction, "call": request.call}
        if refused is not None:
            facts |= {"reason": refused.reason, "retry_after_s": refused.retry_after_s}
        self._log.write(decision, now_s, **facts)

    def _policy_failed(self, error: str) -> None:
        sys.stderr.write(
            f"policy {self._policy.name} failed; from now on in the order of arrival: {error}\n"
        )
        if self._log is not None:
            self._log.write("policy_failed", time.monotonic(), error=error)

    def _note_start(self) -> None:
        if self._log is None:
            return
        settings = self.settings
        self._log.write(
            "started",
            time.monotonic(),
            format_version=FORMAT_VERSION,
            policy=settings.policy,
            policy_options=settings.policy_options,
            weights={name: tenant.weight for name, tenant in settings.tenants.items()},
            window=settings.window,
            window_tokens=settings.window_tokens,
        )

    def _note_state(self, now_s: float) -> None:
        if self._log is None:
            return
        admission = self.admission
        counters = admission.policy.counters()
        self._log.write(
            "state",
            now_s,
            queued=admission.waiting,
            running=admission.outstanding,
            window=admission.window.size,
            counters=dict(list(counters.items())[:MOST_COUNTERS]),
        )
        self._log.flush()

    async def _take_care(self) -> None:
        """Expire, let go whom the policy held back, and each second look at the server."""
        looking: asyncio.Task[None] | None = None
        while True:
            for _ in range(TICKS_PER_LOOK):
                await asyncio.sleep(TICK_S)
                now_s = time.monotonic()
                self.admission.expire(now_s)
                self.admission.dispatch(now_s)
            self._give_up_silent(now_s)
            self._note_state(now_s)
            if looking is None or looking.done():  # a slow server is not asked twice at once
                looking = asyncio.create_task(self._look(), name="gateway look")

    async def _look(self) -> None:
        """Learn what the server says of itself, as far as that is used."""
        adaptive = self.settings.window is None
        if not adaptive and self._usage_known:
            return
        metrics = await self._metrics()
        if adaptive:
            self.admission.window.observe(metrics, self.admission.outstanding)
            self.admission.dispatch(time.monotonic())

    async def _metrics(self) -> ServerMetrics | None:
        try:
            answer = await self._upstream.get("/metrics", (), _PROBE_TIMEOUT_S)
        except UpstreamError as error:
            self._proxy.upstream_error = str(error)
            return None
        self._proxy.upstream_error = None
        if not self._usage_known:
            self._usage_known = True
            self._proxy.continuous = answer.status == 200 and b"vllm:" in answer.body
        with contextlib.suppress(ValueError):
            return parse_metrics(answer.body.decode("utf-8", "replace"))
        return None

    def _give_up_silent(self, now_s: float) -> None:
        limit_s = self.settings.upstream_timeout_s
        for relay in list(self._proxy.relays):
            heard_s = relay.heard_s
            if heard_s is not None and now_s - heard_s > limit_s:
                relay.give_up(UpstreamError(f"the server has said nothing for {limit_s:g} s"))


async def serve(settings: GatewaySettings, keys: Keys, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal stops at once.

    Raises:
        PreflightError: the port cannot be had.
        SpecError: the event log cannot be written.
    """
    _allow_many_connections()
    signals = 0
    asked, again = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        (asked if signals == 1 else again).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with Gateway(settings, keys) as gateway:
        ready(gateway.port)
        await asked.wait()
        draining = asyncio.create_task(gateway.drain(settings.drain_s))
        stopping = asyncio.create_task(again.wait())
        await asyncio.wait({draining, stopping}, return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        stopping.cancel()


def _allow_many_connections() -> None:
    """Raise the soft limit of open files to the hard one: two connections for each request."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
