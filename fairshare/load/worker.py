"""One of several load processes: drives its tenants from the common barrier, sends records home.

Started as ``python -m fairshare.load.worker SOCKET NUMBER``. It ends with its parent.
"""

from __future__ import annotations

import asyncio
import os
import sys

from fairshare.load.driver import drive
from fairshare.load.messages import (
    Done,
    Failed,
    Go,
    Hello,
    InFlight,
    Order,
    Phase,
    Ready,
    Records,
    Stop,
    receive,
    send,
)
from fairshare.records import RequestRecord

SEND_EVERY_S = 1.0


def main() -> None:
    """Do what the parent orders."""
    asyncio.run(_work(sys.argv[1], int(sys.argv[2])))


async def _work(path: str, number: int) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    send(writer, Hello(number))
    order = await receive(reader)
    if isinstance(order, Order):
        await _obey(order, reader, writer)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def _obey(order: Order, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    stop = asyncio.Event()
    origin: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    mail = _Mail(writer)

    async def barrier() -> int:
        send(writer, Ready())
        return await origin

    async def listen() -> None:
        while (message := await receive(reader)) is not None:
            if isinstance(message, Go):
                origin.set_result(message.origin_ns)
            elif isinstance(message, Stop):
                stop.set()
        os._exit(1)  # the parent is gone: nobody wants to know any more

    listening = asyncio.create_task(listen())
    try:
        report = await drive(
            order.loads,
            order.timing,
            mail.add,
            stop=stop,
            on_window=lambda phase: send(writer, Phase(phase)),
            on_pulse=lambda requests: send(writer, InFlight(requests)),
            transport=order.transport,
            barrier=barrier,
        )
    except Exception as error:  # the parent raises it
        send(writer, Failed(error))
    else:
        mail.flush()
        send(writer, Done(report))
    finally:
        mail.close()
        listening.cancel()


class _Mail:
    """Records on their way home, many at a time."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, record: RequestRecord) -> None:
        self._lines.append(record.to_json())
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SEND_EVERY_S, self.flush)

    def flush(self) -> None:
        self._timer = None
        if self._lines:
            send(self._writer, Records(b"\n".join(self._lines)))
            self._lines.clear()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


if __name__ == "__main__":
    main()
