"""A server's ``/metrics`` page, fetched."""

from __future__ import annotations

import aiohttp

from fairshare.serving.probes import NotHttpError, get
from fairshare.serving.server import Server
from fairshare.wire.exposition import ServerMetrics, parse_metrics


async def fetch_metrics(session: aiohttp.ClientSession, server: Server) -> ServerMetrics | None:
    """What the server says now; None if it has no metrics or does not answer with any."""
    page = await fetch_page(session, server)
    try:
        return None if page is None else parse_metrics(page)
    except ValueError:
        return None


async def fetch_page(session: aiohttp.ClientSession, server: Server) -> str | None:
    """The whole page as text; None if there is none."""
    path = server.launcher.metrics_path
    if path is None:
        return None
    try:
        reply = await get(session, server.base_url + path, server.api_key)
    except NotHttpError:
        return None
    if reply is None or reply.status != 200:
        return None
    return reply.body.decode("utf-8", "replace")
