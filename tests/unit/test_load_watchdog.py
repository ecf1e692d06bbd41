"""Two limits, one timer, and cancellation from outside stays what it is."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest

from fairshare.load.transport import TransportError
from fairshare.load.watchdog import Watchdog
from fairshare.records import ErrorKind


@dataclass
class Stream:
    """A stream that last spoke then."""

    last_ns: int | None = None


async def test_total_limit_is_a_timeout() -> None:
    """Silence before the first word is bounded by the whole request's limit only."""
    with (
        pytest.raises(TransportError) as caught,
        Watchdog(Stream(), timeout_s=0.05, stall_s=0.001),
    ):
        await asyncio.Event().wait()
    assert caught.value.kind is ErrorKind.TIMEOUT


async def test_silence_after_speech_is_a_stall() -> None:
    """A stream that spoke once and no more is cut off before the whole request's limit."""
    with (
        pytest.raises(TransportError) as caught,
        Watchdog(Stream(time.monotonic_ns()), timeout_s=30, stall_s=0.02),
    ):
        await asyncio.Event().wait()
    assert caught.value.kind is ErrorKind.STALLED


async def test_speech_puts_the_stall_off() -> None:
    """As long as words keep coming, silence is counted from the last."""
    stream = Stream(time.monotonic_ns())
    with Watchdog(stream, timeout_s=30, stall_s=0.5):
        for _ in range(8):
            stream.last_ns = time.monotonic_ns()
            await asyncio.sleep(0.1)


async def test_cancellation_from_outside_passes_through() -> None:
    """The watchdog turns only its own cancellation into an error."""
    entered = asyncio.Event()

    async def guarded() -> None:
        with Watchdog(Stream(), timeout_s=30, stall_s=30):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(guarded())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nothing_happens_after_the_block() -> None:
    """A request that was in time is not cancelled later."""
    with Watchdog(Stream(), timeout_s=0.01, stall_s=0.01):
        pass
    await asyncio.sleep(0.03)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
