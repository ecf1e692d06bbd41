"""Simulated engines in real time: what they say of a host that is too slow."""

from __future__ import annotations

import asyncio
import time

from aiohttp.test_utils import TestClient, TestServer

from fairshare.devices.constants import gpu_spec
from fairshare.scheduling.fcfs import Fcfs
from fairshare.virtual.board import own_entry
from fairshare.virtual.deployed import GpuFigures
from fairshare.virtual.engine import Engine, Limits
from fairshare.virtual.http import Frontend
from fairshare.virtual.models import virtual_model
from fairshare.virtual.physics import Costs
from fairshare.virtual.realtime import RealTimeEngine, Step
from fairshare.virtual.requests import Served
from fairshare.virtual.rules import Partition, SharingKind, TimeSliced

FRONT_END_S = 0.01
BUSY_S = 0.1


async def test_what_a_busy_host_adds_is_counted_apart_from_simulated_time() -> None:
    """A host that does something else meanwhile is late by that much, and says so."""

    def busy_first(step: Step) -> None:
        time.sleep(BUSY_S)
        frontend.deliver(step)

    model = virtual_model("qwen3-0.6b")
    frontend = Frontend(Served("m", model.vocab_size, 512, ()), front_end_s=FRONT_END_S, api_key="")
    engine = RealTimeEngine(
        Engine(Limits(8, 2048, 1000), Fcfs()),
        Costs.of(GpuFigures.of(gpu_spec("h200")), model),
        TimeSliced(),
        Partition(),
        own_entry(0, SharingKind.TIMESLICE, 1.0, 0),
        None,
        busy_first,
    )
    frontend.attach(engine)
    stepping = asyncio.create_task(engine.run())
    async with TestClient(TestServer(frontend.application())) as client:
        asked = {"prompt": [1, 2, 3], "max_tokens": 2, "stream": True}
        async with client.post("/v1/completions", json=asked) as response:
            assert b"[DONE]" in await response.read()
    stepping.cancel()
    told = engine.dilation
    assert told.ttft_s - told.ttft_simulated_s > 0.9 * BUSY_S
    assert told.e2e_s - told.e2e_simulated_s > 1.8 * BUSY_S  # it was still late from the first
