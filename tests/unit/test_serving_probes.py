"""Small questions to a server."""

from __future__ import annotations

import asyncio
import time

from fairshare.serving.probes import get, new_session


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_a_question_that_is_cancelled_as_its_time_runs_out_is_cancelled() -> None:
    """Whoever waits for a watcher that he cancelled does not wait for ever on a busy machine."""
    limit_s, cancelled_s = 0.2, 0.25

    async def watch(url: str) -> None:
        async with new_session() as session:
            while True:
                await get(session, url, None, limit_s)

    async with await asyncio.start_server(_silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        task = asyncio.create_task(watch(f"http://127.0.0.1:{port}/health"))
        loop = asyncio.get_running_loop()
        loop.call_later(cancelled_s, task.cancel)
        loop.call_later(limit_s / 2, time.sleep, limit_s)  # the loop finds both due at once
        await asyncio.wait({task}, timeout=5)
        assert task.cancelled()
