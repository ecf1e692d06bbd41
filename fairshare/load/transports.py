"""Which transport carries the requests. Both are tested by the same tests of the protocol."""

from __future__ import annotations

from fairshare.load.aiohttp_transport import AiohttpTransport
from fairshare.load.stream_transport import StreamTransport
from fairshare.load.transport import Transport
from fairshare.records import TransportKind

DEFAULT_TRANSPORT = TransportKind.STREAM


def transport_to(base_url: str, kind: TransportKind = DEFAULT_TRANSPORT) -> Transport:
    """A new transport to one server."""
    if kind is TransportKind.AIOHTTP:
        return AiohttpTransport(base_url)
    return StreamTransport(base_url)
