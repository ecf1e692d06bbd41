"""Which transport carries the requests. Those over HTTP are tested by the same tests of it."""

from __future__ import annotations

from fairshare.load.aiohttp_transport import AiohttpTransport
from fairshare.load.engine_transport import URL_SCHEME, EngineTransport
from fairshare.load.stream_transport import StreamTransport
from fairshare.load.transport import Transport
from fairshare.records import TransportKind

DEFAULT_TRANSPORT = TransportKind.STREAM


def transport_to(base_url: str, kind: TransportKind = DEFAULT_TRANSPORT) -> Transport:
    """A new transport to one server; the URL ``unix:PATH`` is of an engine without HTTP."""
    if base_url.startswith(URL_SCHEME):
        return EngineTransport(base_url.removeprefix(URL_SCHEME))
    if kind is TransportKind.AIOHTTP:
        return AiohttpTransport(base_url)
    return StreamTransport(base_url)
