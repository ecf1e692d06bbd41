"""Servers that somebody else runs: found, asked for their models, and left as they are."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable

import aiohttp

from fairshare.errors import PreflightError, ServerError, SpecError
from fairshare.events import EventLog
from fairshare.serving.probes import NotHttpError, get, listed_models, new_session
from fairshare.serving.server import Server, ServerState
from fairshare.spec.launcher import Endpoint, Launcher

_TIMEOUT_S = 10.0


def endpoints_of(launcher: Launcher, tenants: Iterable[str]) -> dict[str, str]:
    """Which endpoint serves each tenant: that of its name, else ``default``.

    Raises:
        SpecError: a tenant has none.
    """
    chosen = {}
    for tenant in tenants:
        key = tenant if tenant in launcher.endpoints else "default"
        if key not in launcher.endpoints:
            raise SpecError(
                f"launcher {launcher.name} has no endpoint for tenant {tenant}",
                hint=f"add endpoints.{tenant}.url, or endpoints.default.url for all tenants",
            )
        chosen[tenant] = key
    return chosen


async def external_servers(
    launcher: Launcher, tenants: Iterable[str], events: EventLog
) -> tuple[dict[str, Server], dict[str, str]]:
    """The servers by endpoint name, and the endpoint of each tenant.

    Raises:
        SpecError: a tenant has no endpoint, or an endpoint does not serve the model asked for.
        PreflightError: the variable with an endpoint's key is not set.
        ServerError: an endpoint does not answer as a server should.
    """
    by_tenant = endpoints_of(launcher, tenants)
    servers = {}
    async with new_session() as session:
        for name in dict.fromkeys(by_tenant.values()):
            servers[name] = await _connect(name, launcher, session, events)
    return servers, by_tenant


async def _connect(
    name: str, launcher: Launcher, session: aiohttp.ClientSession, events: EventLog
) -> Server:
    endpoint = launcher.endpoints[name]
    base_url = endpoint.url.rstrip("/").removesuffix("/v1")
    key = endpoint_key(name, endpoint)
    model = await _model(name, launcher, session, base_url=base_url, key=key)
    server = Server(
        name, launcher, base_url=base_url, served_model=model, api_key=key, events=events
    )
    server.state = ServerState.READY
    events.emit("server.found", server=name, url=base_url, model=model)
    return server


def endpoint_key(name: str, endpoint: Endpoint) -> str | None:
    """The key of an endpoint, from the variable that holds it.

    Raises:
        PreflightError: the variable is not set.
    """
    if endpoint.api_key_env is None:
        return None
    key = os.environ.get(endpoint.api_key_env)
    if not key:
        raise PreflightError(
            f"endpoint {name} takes its key from {endpoint.api_key_env}, which is not set",
            hint=f"export {endpoint.api_key_env}=... before the run",
        )
    return key


async def _model(
    name: str,
    launcher: Launcher,
    session: aiohttp.ClientSession,
    *,
    base_url: str,
    key: str | None,
) -> str:
    """The model to ask for; on the way, that the endpoint answers and takes our key."""
    endpoint = launcher.endpoints[name]
    path = launcher.models_path or launcher.health_path
    try:
        reply = await get(session, base_url + path, key, _TIMEOUT_S)
    except NotHttpError as error:
        raise ServerError(f"endpoint {name}: {base_url} does not speak HTTP ({error})") from None
    if reply is None:
        raise ServerError(
            f"endpoint {name}: nobody answers at {base_url}{path}",
            hint="check endpoints.*.url in the launcher, and that the server runs",
        )
    if reply.status in (401, 403):
        raise ServerError(
            f"endpoint {name}: {base_url} answers {reply.status}: it wants another key",
            hint="name the variable that holds it in endpoints.*.api_key_env",
        )
    if reply.status != 200:
        raise ServerError(f"endpoint {name}: {base_url}{path} answers {reply.status}")
    if launcher.models_path is None:
        if endpoint.model is None:
            raise SpecError(f"endpoints.{name}.model is missing: the server lists no models")
        return endpoint.model
    return _chosen(name, endpoint, f"{base_url}{path}", listed_models(reply.body))


def _chosen(name: str, endpoint: Endpoint, url: str, listed: list[str] | None) -> str:
    if not listed:
        raise ServerError(f"endpoint {name}: {url} answers with no list of models")
    if endpoint.model is None:
        return listed[0]
    if endpoint.model not in listed:
        close = difflib.get_close_matches(endpoint.model, listed, n=1)
        hint = f"did you mean {close[0]}?" if close else f"it serves {', '.join(listed)}"
        raise SpecError(f"endpoint {name} does not serve {endpoint.model}", hint=hint)
    return endpoint.model
