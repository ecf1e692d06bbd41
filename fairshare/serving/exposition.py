"""A server's ``/metrics`` page, fetched."""

from __future__ import annotations

import aiohttp

from fairshare.serving.probes import NotHttpError, get
from fairshare.serving.server import Server
from fairshare.wire.exposition import ServerMetrics, parse_metrics


async def fetch_metrics(session: aiohttp.ClientSession, server: Server) -> ServerMetrics | None:
    """What the server says now; None if it has no metrics or does not answer with any."""
    path = server.launcher.metrics_path
    if path is None:
        return None
    try:
        reply = await get(session, server.base_url + path, server.api_key)
        if reply is None or reply.status != 200:
            return None
        return parse_metrics(reply.body.decode("utf-8", "replace"))
    except (NotHttpError, ValueError):
        return None
