"""The seam between what is measured and what carries it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fairshare.records import ErrorKind


class TransportError(Exception):
    """A request failed below the protocol of the answer; ``kind`` says how."""

    def __init__(self, kind: ErrorKind, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


class Receiver(Protocol):
    """Who is told what arrives; times are ``time.monotonic_ns()`` taken before any parsing."""

    def on_headers(
        self, now_ns: int, status: int, content_type: str, retry_after: str = ""
    ) -> None:
        """The answer's status line and headers are here; of these, two matter."""
        ...

    def on_data(self, now_ns: int, data: bytes) -> bool:
        """Bytes of the body, as they came; return whether the answer is complete.

        Raises:
            WireError: what came is not the protocol; the transport drops the connection.
        """
        ...

    def on_end(self, now_ns: int) -> None:
        """The body ended as HTTP says it should.

        Raises:
            WireError: what came is not the protocol.
        """
        ...


class Transport(Protocol):
    """Carries requests to one server over as many connections as are needed."""

    async def post(
        self, path: str, headers: Mapping[str, str], body: bytes, receiver: Receiver
    ) -> None:
        """Send one request and feed its answer to ``receiver`` until it ends.

        Never retries and follows no redirect. Cancelling drops the connection.

        Raises:
            TransportError: the connection or HTTP itself failed.
            WireError: what the receiver raised.
        """
        ...

    async def prepare(self, connections: int) -> None:
        """Get ready for so many requests at once, as far as that can be done ahead."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
