"""Each request from its first byte to its last: who asks, whether it may go, and its answer."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from fairshare.gateway.admission import Admission, Refused, Ticket
from fairshare.gateway.asked import (
    SCHEDULED_PATHS,
    Asked,
    BadRequestError,
    read_asked,
    with_priority,
)
from fairshare.gateway.forwarding import BadHeaderError, Forwarding, Hints, hints
from fairshare.gateway.identity import (
    BadNameError,
    Caller,
    Identity,
    Keys,
    UnauthorizedError,
)
from fairshare.gateway.metering import Mask, Meter, StreamMeter, WholeMeter
from fairshare.gateway.relay import Outcome, Relay, error_json
from fairshare.gateway.settings import GatewaySettings
from fairshare.gateway.tally import Tally
from fairshare.gateway.upstream import Upstream, UpstreamError
from fairshare.scheduling.names import Names
from fairshare.scheduling.policy import Request
from fairshare.wire.tgi import STREAM_PATH

PASSED_POST_PATHS = ("/tokenize", "/detokenize")
"""What is posted here generates nothing; it is passed on at once."""
MOST_APPS = 1000
"""Applications that are told apart, since policies remember each."""
OPEN_PATHS = ("/health", "/ping", "/version", "/metrics")
"""What anybody may read of the server, as with vLLM's own key."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _BodyError(Exception):
    """A request's body that does not come, or too much of it: status, kind and text."""

    def __init__(self, status: int, kind: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.kind = kind


DRAINING = Refused(503, "draining", "the gateway is about to stop")


class Proxy:
    """Answers every request that is not about the gateway itself."""

    def __init__(
        self,
        settings: GatewaySettings,
        keys: Keys,
        upstream: Upstream,
        admission: Admission,
        tally: Tally,
    ) -> None:
        self._settings = settings
        self._identity = Identity(settings, keys)
        self._forwarding = Forwarding(settings, keys.upstream, guarded=self._identity.guarded)
        self._upstream = upstream
        self._admission = admission
        self._tally = tally
        self._passed = {*PASSED_POST_PATHS, *settings.pass_paths}
        self._apps = Names(MOST_APPS, {""})
        self._numbers = itertools.count(1)
        self.relays: set[Relay] = set()
        self.continuous = bool(settings.continuous_usage)
        """Whether the server counts its tokens in each chunk if asked to."""
        self.draining = False
        self.upstream_error: str | None = None
        """Why the server did not answer the last time, if it did not."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        try:
            caller = self._identity.caller(request.headers)
        except UnauthorizedError:
            if request.method != "GET" or request.path not in OPEN_PATHS:
                return _error(401, "unauthorized", "a valid API key is needed")
            caller = Caller()
        if self.draining:
            return _refused(DRAINING)
        try:
            if request.method == "POST" and request.path in SCHEDULED_PATHS:
                return await self._scheduled(request, caller)
            posted = request.method == "POST" and request.path in self._passed
            if posted or request.method == "GET":
                return await self._passed_on(request)
        except _BodyError as error:
            return _error(error.status, error.kind, str(error), {"Connection": "close"})
        return _error(
            404, "not_passed_on", f"{request.method} {request.path} would go past the queue"
        )

    async def _scheduled(self, request: web.BaseRequest, caller: Caller) -> web.StreamResponse:
        """Queue a request, and relay its answer once it is its turn."""
        raw = await self._body(request)
        if self.draining:  # by now: its body was still on its way
            return _refused(DRAINING)
        try:
            asked = read_asked(request.path, raw, self._settings.default_output_tokens)
            tenant = self._identity.tenant(caller, request.headers, asked.body.get("user"))
            said = hints(request.headers, asked.body) if caller.known else Hints()
        except (BadRequestError, BadNameError, BadHeaderError) as error:
            return _error(400, "bad_request", str(error))
        mask = self._prepare(asked)
        body = self._rewritten(asked, raw, tenant, changed=mask is not None)
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[Refused | None] = loop.create_future()
        streamed = asked.stream or request.path == STREAM_PATH
        made = self._request(asked, tenant, said)
        ticket = Ticket(made, len(body), _resolver(turn), streamed=streamed)
        meter: Meter = (
            StreamMeter(asked.reader(), mask, continuous=self._continuous(asked))
            if streamed
            else WholeMeter(asked.reader())
        )
        admission = self._admission
        try:
            refused = admission.arrive(ticket, time.monotonic())
            if refused is None:
                refused = turn.result() if turn.done() else await turn
            if refused is not None:
                return _refused(refused)
            return await self._relayed(request, ticket, meter, body)
        finally:
            admission.withdraw(ticket, time.monotonic())  # unless it has ended otherwise

    async def _relayed(
        self, request: web.BaseRequest, ticket: Ticket, meter: Meter, body: bytes
    ) -> web.StreamResponse:
        headers = self._forwarding.headers(request)
        if self._settings.send_priority:
            rank = self._admission.policy.rank(ticket.request)
            headers.append(("X-Vllm-Priority", str(rank)))
            body = with_priority(body, rank)
        message = self._upstream.request("POST", request.rel_url.raw_path_qs, headers, body)
        relay = Relay(request, meter, _Charge(self._admission, self._tally, ticket, meter))
        self.relays.add(relay)
        try:
            response = await relay.run(self._upstream, message, self._settings.client_timeout_s)
        except UpstreamError as error:
            self._admission.fail(ticket, time.monotonic())
            return self._unavailable(error)
        except ConnectionError:
            return _abandoned(request)
        finally:
            ticket.sent = relay.sent
            self.relays.discard(relay)
        self.upstream_error = None
        if relay.outcome is Outcome.COMPLETE and 200 <= relay.status < 300:
            self._admission.finish(ticket, time.monotonic())
        else:
            self._admission.fail(ticket, time.monotonic())
        return response

    async def _passed_on(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send a request on without a place in the queue."""
        body = await self._body(request)
        headers = self._forwarding.headers(request)
        target = request.rel_url.raw_path_qs
        message = self._upstream.request(request.method, target, headers, body)
        relay = Relay(request, None, _nothing)
        self.relays.add(relay)
        try:
            response = await relay.run(self._upstream, message, self._settings.client_timeout_s)
        except UpstreamError as error:
            return self._unavailable(error)
        except ConnectionError:
            return _abandoned(request)
        finally:
            self.relays.discard(relay)
        self.upstream_error = None
        return response

    async def _body(self, request: web.BaseRequest) -> bytes:
        try:
            if request.content.is_eof():  # nearly always: it came with its head
                return await request.read()
            if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
                request.transport.write(_CONTINUE)
            async with asyncio.timeout(self._settings.body_timeout_s):
                return await request.read()
        except TimeoutError:
            raise _BodyError(408, "slow_request", "the request did not come in time") from None
        except web.RequestPayloadError:
            text = "the body cannot be read: its chunks or its compression are broken"
            raise _BodyError(400, "bad_request", text) from None
        except web.HTTPRequestEntityTooLarge:
            most = self._settings.max_body_bytes
            raise _BodyError(413, "too_large", f"a request may have {most} bytes") from None

    def _continuous(self, asked: Asked) -> bool:
        return self.continuous and asked.openai and asked.outputs == 1

    def _prepare(self, asked: Asked) -> Mask | None:
        """Ask the server to count; what the client must then not see."""
        if asked.ask_for_usage(continuous=self._continuous(asked)):
            return Mask(keep_last=asked.usage)
        return None

    def _rewritten(self, asked: Asked, raw: bytes, tenant: str, *, changed: bool) -> bytes:
        """The body for the server: as it came, unless something must be changed in it."""
        named = asked.name_tenant(tenant if self._settings.tenant_in_body else None)
        if self._settings.send_priority:
            asked.body.pop("priority", None)
            changed = True  # written anew, it begins with its brace, where the rank is put
        return asked.encoded() if changed or named else raw

    def _request(self, asked: Asked, tenant: str, said: Hints) -> Request:
        now_s = time.monotonic()
        return Request(
            id=f"{next(self._numbers):x}",
            tenant=tenant,
            prompt_tokens=asked.prompt_tokens,
            max_output_tokens=asked.output_tokens,
            arrival_s=now_s,
            app=self._apps.told_apart(said.app),
            interaction=said.interaction,
            call=said.call,
            calls=said.calls,
            system_tokens=min(said.system_tokens, asked.prompt_tokens),
            deadline_s=None if said.deadline_s is None else now_s + said.deadline_s,
        )

    def _unavailable(self, error: UpstreamError) -> web.Response:
        self.upstream_error = str(error)
        return _error(502, "upstream_unavailable", str(error))


class _Charge:
    """Charges a ticket for what its meter has counted since the last time."""

    __slots__ = ("_admission", "_cached", "_charged", "_meter", "_prompt", "_tally", "_ticket")

    def __init__(self, admission: Admission, tally: Tally, ticket: Ticket, meter: Meter) -> None:
        self._admission = admission
        self._tally = tally.tenants[ticket.request.tenant]
        self._ticket = ticket
        self._meter = meter
        self._charged = 0
        self._prompt: int | None = None
        self._cached: int | None = None

    def __call__(self) -> None:
        now_s, meter = time.monotonic(), self._meter
        prompt, cached = meter.prompt_tokens, meter.cached_tokens
        if prompt is not None and (prompt != self._prompt or cached != self._cached):
            self._prompt, self._cached = prompt, cached
            self._admission.counted(self._ticket, prompt, cached or 0, now_s)
        new = meter.tokens - self._charged
        if new > 0:
            self._charged += new
            self._tally.output_tokens += new
            self._admission.produced(self._ticket, new, now_s)


def _resolver(turn: asyncio.Future[Refused | None]) -> Any:
    def decided(refused: Refused | None) -> None:
        if not turn.done():
            turn.set_result(refused)

    return decided


def _nothing() -> None:
    """Nobody is charged."""


def _abandoned(request: web.BaseRequest) -> web.Response:
    """The client is gone, or reads nothing; no answer will reach it."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=499)


def _refused(refused: Refused) -> web.Response:
    headers = {}
    if refused.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, math.ceil(refused.retry_after_s)))
    return _error(refused.status, refused.reason, refused.text, headers)


def _error(
    status: int, kind: str, text: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        status=status,
        body=error_json(status, kind, text),
        content_type="application/json",
        headers=headers,
    )
