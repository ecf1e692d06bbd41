"""One MPS daemon of a run: started, limited, asked for a while, and stopped.

``python -m tests.chaos.life_of_a_daemon`` uses whichever control program is on PATH.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from fairshare.devices.constants import GIB
from fairshare.devices.inventory import virtual_device
from fairshare.events import EventLog
from fairshare.processes.scope import run_scope
from fairshare.sharing.mps_daemon import mps_daemon

_WINDOW_S = 0.5


async def live() -> None:
    """Have the daemon, and tell of it in ``out/events.jsonl`` as a sweep does."""
    async with AsyncExitStack() as stack:
        events = stack.enter_context(EventLog(Path("out") / "events.jsonl"))
        scope = await stack.enter_async_context(run_scope(events))
        device = virtual_device("a100-40")
        daemon = await stack.enter_async_context(mps_daemon(device, scope, {}))
        await daemon.control.limit_percentage(0.5)
        await daemon.control.limit_memory(2 * GIB)
        await asyncio.sleep(_WINDOW_S)


if __name__ == "__main__":
    asyncio.run(live())
