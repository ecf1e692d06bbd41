"""What puts something back is not cut short: a second Ctrl-C waits until it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, which is bounded in time; a cancellation in the middle comes after its end.

    Raises:
        Exception: whatever ``work`` raises, also where a cancellation has come meanwhile.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
