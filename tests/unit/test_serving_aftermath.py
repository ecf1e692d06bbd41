"""The GPU's memory after servers have stopped."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.devices.nvml import GpuCondition, NvmlUnavailableError
from fairshare.errors import ServerError
from fairshare.events import EventLog
from fairshare.serving.aftermath import memory_returned
from fairshare.spec.launcher import DeviceKind

GIB = 1024**3
GPU = Device(DeviceKind.CUDA, "GPU-1", "x", 80 * GIB)


class ScriptedNvml:
    """Tells the memory in use as scripted, the last value for ever; None: NVML has gone."""

    def __init__(self, *used_gib: float | None) -> None:
        self._used = list(used_gib)
        self.pids: tuple[int, ...] = ()

    def condition(self, uuid: str) -> GpuCondition:
        """The next value."""
        assert uuid == "GPU-1"
        used = self._used.pop(0) if len(self._used) > 1 else self._used[0]
        if used is None:
            raise NvmlUnavailableError("gone")
        return GpuCondition(used_bytes=int(used * GIB))

    def compute_processes(self, uuid: str) -> list[Any]:
        """Whoever computes."""
        del uuid
        return [SimpleNamespace(pid=pid) for pid in self.pids]


class Listening:
    """Events, and a block between whose ends the scripted memory is looked at."""

    def __init__(self, nvml: ScriptedNvml, device: Device = GPU) -> None:
        self.events: list[Mapping[str, Any]] = []
        log = EventLog()
        log.listen(self.events.append)
        driver = Driver(nvml=nvml)  # type: ignore[arg-type]
        self.block = memory_returned(device, driver, log, wait_s=0.3)

    def names(self) -> list[str]:
        """The events so far."""
        return [event["event"] for event in self.events]


async def test_memory_that_comes_back_late_is_waited_for() -> None:
    """The driver may take its time; how long is an event."""
    seen = Listening(ScriptedNvml(2, 60, 2.5))
    async with seen.block:
        pass
    (event,) = seen.events
    assert event["event"] == "memory.returned"
    assert event["duration_s"] > 0
    assert event["more_bytes"] == GIB // 2


async def test_memory_that_stays_away_is_an_error_with_its_size() -> None:
    """What a server left behind would be missing from the next one's share."""
    seen = Listening(ScriptedNvml(2, 42))
    with pytest.raises(ServerError, match="40 GiB more of the GPU's memory"):
        async with seen.block:
            pass
    assert seen.names() == ["memory.leftover"]


async def test_an_error_of_the_servers_goes_first() -> None:
    """Memory that is missing after a failure is an event beside the failure."""
    seen = Listening(ScriptedNvml(2, 42))
    with pytest.raises(ServerError, match=r"^died$"):
        async with seen.block:
            raise ServerError("died")
    assert seen.names() == ["memory.leftover"]


async def test_memory_of_strangers_is_not_blamed_on_the_servers() -> None:
    """Whoever came to the GPU meanwhile makes the comparison void, which is told."""
    nvml = ScriptedNvml(2, 42)
    seen = Listening(nvml)
    async with seen.block:
        nvml.pids = (77,)
    (event,) = seen.events
    assert event["event"] == "memory.unverified"
    assert "77" in event["reason"]


async def test_a_driver_that_falls_silent_is_told() -> None:
    """An NVML that is gone afterwards is no proof of anything."""
    seen = Listening(ScriptedNvml(2, None))
    async with seen.block:
        pass
    assert seen.names() == ["memory.unverified"]


async def test_on_the_cpu_nothing_is_asked() -> None:
    """Memory on the CPU goes with its process."""
    seen = Listening(ScriptedNvml(None), Device(DeviceKind.CPU, "cpu", "x", GIB))
    async with seen.block:
        pass
    assert seen.names() == []
