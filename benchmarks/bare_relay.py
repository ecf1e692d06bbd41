"""The least that a proxy in Python can do: hand bytes to and fro, and look at none of them.

Usage: ``python -m benchmarks.bare_relay PORT UPSTREAM_PORT``. What it adds to a stream is the price
of two more hops between processes on this machine; no proxy on asyncio adds less.
"""

from __future__ import annotations

import asyncio
import sys


class Side(asyncio.Protocol):
    """One of two connections; what comes on it goes to the other."""

    def __init__(self, other: Side | None = None) -> None:
        self.other = other
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The second of the two finds the first one and what it has got by now."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.other is None:
            self.connecting = asyncio.ensure_future(
                asyncio.get_running_loop().create_connection(
                    lambda: Side(self), "127.0.0.1", int(sys.argv[2])
                )
            )
        else:
            self.other.other = self
            transport.writelines(self.other.early)

    def data_received(self, data: bytes) -> None:
        """Hand it on."""
        if self.other is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """End both."""
        if self.other is not None:
            self.other.transport.close()


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Side, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
