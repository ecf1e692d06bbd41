"""gpu.csv and host.csv."""

from __future__ import annotations

import asyncio
import csv
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fairshare.devices.cpu import cpu_device
from fairshare.devices.driver import Driver
from fairshare.devices.host import HostReader
from fairshare.devices.nvml import GpuSample, NvmlUnavailableError
from fairshare.devices.telemetry import GPU_COLUMNS, gpu_sampler, record_gpu, record_hosts


class Scripted:
    """A sampler that gives the same sample each time."""

    def __init__(self, sample: GpuSample | None) -> None:
        self._sample = sample
        self.taken = 0
        self.closed = False

    def sample(self) -> GpuSample | None:
        """The scripted sample."""
        self.taken += 1
        return self._sample

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for the recording thread; fails loudly when it does not come so far."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


def is_there(path: Path) -> bool:
    """Whether a file exists."""
    return path.exists()


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


async def test_gpu_samples_with_absent_values_empty(tmp_path: Path) -> None:
    """Absent is empty and never zero; times are seconds since the cell's epoch."""
    path = tmp_path / "gpu.csv"
    sampler = Scripted(GpuSample(gpu_utilisation=0.5, power_w=0.0))
    async with record_gpu(sampler, path, time.monotonic_ns(), 0.01) as reason:
        assert reason is None
        await until(lambda: sampler.taken >= 5)
    read = rows(path)
    assert tuple(read[0]) == GPU_COLUMNS
    assert len(read) >= 3
    assert read[0]["gpu_utilisation"] == "0.5"
    assert read[0]["power_w"] == "0.0"
    assert read[0]["temperature_c"] == ""
    times = [float(row["t_s"]) for row in read]
    assert times == sorted(times)
    assert 0 <= times[0] < 5
    assert sampler.closed


@pytest.mark.parametrize("sampler", [None, Scripted(None)])
async def test_without_readings_there_is_a_reason_and_no_file(
    sampler: Scripted | None, tmp_path: Path
) -> None:
    """An empty gpu.csv would look like a measurement."""
    path = tmp_path / "gpu.csv"
    async with record_gpu(sampler, path, 0, 0.01) as reason:
        assert reason
    assert not is_there(path)


async def test_a_gpu_that_was_lost_is_a_reason_and_no_crash(tmp_path: Path) -> None:
    """A GPU that answered when the run began and does not any more costs its file alone."""

    class Lost(Scripted):
        def sample(self) -> GpuSample | None:
            raise NvmlUnavailableError("NVML does not know the GPU")

    sampler = Lost(None)
    path = tmp_path / "gpu.csv"
    async with record_gpu(sampler, path, 0, 0.01) as reason:
        assert reason == "NVML does not know the GPU"
    assert not is_there(path)
    assert sampler.closed


def test_the_reason_for_no_sampler_is_said() -> None:
    """The CPU has no NVML."""
    sampler, reason = gpu_sampler(cpu_device(), Driver())
    assert sampler is None
    assert "cpu" in (reason or "")


async def test_a_body_that_fails_leaves_a_whole_file(tmp_path: Path) -> None:
    """What was sampled before an error is kept, and the error is passed on."""
    path = tmp_path / "gpu.csv"
    sampler = Scripted(GpuSample(power_w=1.0))
    with pytest.raises(RuntimeError, match="the cell failed"):
        async with record_gpu(sampler, path, time.monotonic_ns(), 0.01):
            await until(lambda: sampler.taken >= 3)
            raise RuntimeError("the cell failed")
    assert rows(path)
    assert sampler.closed


async def test_host_rows_of_this_process(tmp_path: Path) -> None:
    """Each reading has a row per server and one for the machine."""
    path = tmp_path / "host.csv"
    asked = 0

    def pids() -> list[int]:
        nonlocal asked
        asked += 1
        return [os.getpid()]

    async with record_hosts({"chat": pids}, path, time.monotonic_ns(), 0.01):
        await until(lambda: asked >= 5)
    read = rows(path)
    assert {row["server"] for row in read} == {"chat", "(machine)"}
    own = [row for row in read if row["server"] == "chat"]
    assert own[0]["cpu_percent"] == ""
    assert float(own[-1]["cpu_percent"]) >= 0
    assert int(own[0]["rss_bytes"]) > 2**20


def stat(folder: Path, pid: int, ticks: int, pages: int) -> None:
    """A process's stat file in a made-up /proc."""
    (folder / str(pid)).mkdir(parents=True, exist_ok=True)
    values = ["S", *["0"] * 10, str(ticks), "0", *["0"] * 7, "0", str(pages), *["0"] * 20]
    (folder / str(pid) / "stat").write_text(f"{pid} (a) b) {' '.join(values)}\n")


def test_cpu_counts_processes_that_come_and_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 ticks in a second by one process and 50 by a new one are 150 % of a core."""
    (tmp_path / "stat").write_text("cpu 100 0 0 0 0 0 0 0\n")
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable: 60 kB\n")
    now = 10.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tree = [1, 2]
    reader = HostReader({"chat": lambda: tree}, proc=tmp_path)
    stat(tmp_path, 1, ticks=500, pages=10)
    stat(tmp_path, 2, ticks=9999, pages=1)
    first = reader.rows()
    assert first[0] == ("chat", None, 11 * os.sysconf("SC_PAGE_SIZE"))
    assert first[1] == ("(machine)", None, 40 * 1024)
    hertz = os.sysconf("SC_CLK_TCK")
    stat(tmp_path, 1, ticks=500 + hertz, pages=10)
    stat(tmp_path, 3, ticks=hertz // 2, pages=1)
    tree[:] = [1, 3]
    (tmp_path / "stat").write_text(f"cpu {100 + hertz} {hertz} 0 0 0 0 0 0\n")
    now = 11.0
    second = reader.rows()
    assert second[0][1] == 150.0
    assert second[1][1] == 200.0


def test_a_dead_server_has_an_empty_row(tmp_path: Path) -> None:
    """No process is no reading: neither 0 % nor 0 bytes."""
    (tmp_path / "stat").write_text("cpu 1 0 0 0 0 0 0 0\n")
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable: 60 kB\n")
    reader = HostReader({"chat": lambda: [4]}, proc=tmp_path)
    assert reader.rows()[0] == ("chat", None, None)
