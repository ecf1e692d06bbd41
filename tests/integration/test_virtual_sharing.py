"""Several virtual servers on one simulated GPU, and the stand-in tools as real processes."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp
import psutil
import pytest
from virtual_servers import body, environment, refused, reports, server

from fairshare.devices.nvml import Nvml
from fairshare.virtual.board import Board, Entry
from fairshare.virtual.driver import install
from fairshare.virtual.nvml import StandInNvml
from tests.workplace import runs

# A step of a large model is nearly all weights, so it hardly depends on the tokens so far.
LARGE = ("--model", "qwen3-4b")
HALF = (*LARGE, "--gpu-memory-utilization", "0.45")


@pytest.fixture
def gpu(tmp_path: Path) -> dict[str, str]:
    """The environment of a simulated A100-40."""
    return install(tmp_path / "gpu", "a100-40")


def state(gpu: Mapping[str, str]) -> Path:
    """Where the GPU lives."""
    return Path(gpu["FAIRSHARE_VIRTUAL_GPU"])


def tool(gpu: Mapping[str, str], *argv: str, text: str = "") -> tuple[int, str, str]:
    """Run a stand-in found on PATH; status, output, errors."""
    env = environment(gpu)
    program = Path(env["PATH"].split(os.pathsep)[0]) / argv[0]
    done = subprocess.run(
        [str(program), *argv[1:]],
        env=env, input=text, capture_output=True, text=True, timeout=20, check=False, cwd="/",
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


async def steps_of(
    urls: list[str], board: Board, enough: Callable[[list[Entry]], bool]
) -> list[float]:
    """Simulated step durations of the servers, read while all of them decode."""
    async with aiohttp.ClientSession() as session:
        streams = [
            await session.post(f"{url}/v1/completions", json=body(max_tokens=2000)) for url in urls
        ]
        async with asyncio.timeout(20):
            while True:
                for stream in streams:
                    await stream.content.readline()
                entries = board.entries()
                if enough(entries):
                    break
        for stream in streams:
            stream.close()
        return sorted(entry.step_s for entry in entries if entry.busy)


async def test_time_sliced_servers_slow_each_other_down_by_the_law(gpu: dict[str, str]) -> None:
    """Two busy servers take 2 * 1.092 as long for a simulated step as one; memory adds up."""
    with server(*HALF, env=gpu) as one, server(*HALF, env=gpu) as two:
        with Board(state(gpu) / "board") as board:
            (alone,) = await steps_of([one.url], board, lambda found: any(e.busy for e in found))
            both = await steps_of(
                [one.url, two.url],
                board,
                lambda found: sum(e.step_s > 1.5 * alone for e in found if e.busy) == 2,
            )
        assert both == pytest.approx([2 * 1.092 * alone] * 2, rel=0.05)
        sampler = Nvml(StandInNvml(state(gpu))).sampler("virtual:a100-40")
        sample = sampler.sample()
        assert sample is not None
        assert sample.memory_used_bytes == sum(r["used_bytes"] for r in reports(state(gpu)))
        sampler.close()


async def test_mig_servers_do_not_notice_each_other(gpu: dict[str, str]) -> None:
    """On two instances a step beside a busy neighbour is as long as alone."""
    assert tool(gpu, "nvidia-smi", "-i", "0", "-mig", "1")[0] == 0
    assert tool(gpu, "nvidia-smi", "mig", "-i", "0", "-cgi", "9,9", "-C")[0] == 0
    uuids = re.findall(r"MIG-[0-9a-f-]+", tool(gpu, "nvidia-smi", "-L")[1])
    env = [{**gpu, "CUDA_VISIBLE_DEVICES": uuid} for uuid in uuids]
    with server(*LARGE, env=env[0]) as one, server(*LARGE, env=env[1]) as two:
        assert {r["device_uuid"] for r in reports(state(gpu))} == set(uuids)
        assert {r["sharing"] for r in reports(state(gpu))} == {"mig"}
        with Board(state(gpu) / "board") as board:
            (alone,) = await steps_of([one.url], board, lambda found: any(e.busy for e in found))
            both = await steps_of(
                [one.url, two.url], board, lambda found: sum(e.busy for e in found) == 2
            )
        assert both == pytest.approx([alone] * 2, rel=0.05)
        assert tool(gpu, "nvidia-smi", "mig", "-dci")[0] == 19


def test_mps_server_gets_the_tighter_limits(gpu: dict[str, str], tmp_path: Path) -> None:
    """Daemon default and client limit combine; the daemon lists the client until it ends."""
    gpu |= {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path / "p"), "CUDA_MPS_LOG_DIRECTORY": str(tmp_path)}
    control = "nvidia-cuda-mps-control"
    assert tool(gpu, control, text="get_server_list\n") == (
        1,
        "",
        "Cannot find MPS control daemon process\n",
    )
    assert tool(gpu, control, "-d")[0] == 0
    try:
        assert tool(gpu, control, "-d")[:2] == (
            1,
            "An instance of this daemon is already running\n",
        )
        settings = "set_default_device_pinned_mem_limit 0 19G\n"
        assert tool(gpu, control, text="set_default_active_thread_percentage 40\n" + settings) == (
            0,
            "40.0\n",
            "",
        )
        client = {
            **gpu,
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "60",
            "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=10G",
        }
        with server("--gpu-memory-utilization", "0.2", env=client) as running:
            (report,) = reports(state(gpu))
            assert report["sharing"] == "mps"
            assert report["compute_fraction"] == pytest.approx(0.4)
            assert report["memory_bytes"] == 10 * 1024**3
            server_pid = int(tool(gpu, control, text="get_server_list\n")[1])
            mps_server = psutil.Process(server_pid)
            clients = tool(gpu, control, text=f"get_client_list {server_pid}\n")[1]
            assert clients == f"{running.process.pid}\n"
            table = tool(gpu, "nvidia-smi")[1]
            assert re.search(rf" {running.process.pid} +M\+C ", table)
            assert re.search(rf" {server_pid} +C +nvidia-cuda-mps-server ", table)
            assert running.stop() == 0
            assert tool(gpu, control, text=f"get_client_list {server_pid}\n")[1] == ""
    finally:
        assert tool(gpu, control, text="quit -t 5\n") == (0, "", "")
    assert not (tmp_path / "p" / "nvidia-cuda-mps-control.pid").exists()
    assert not runs(mps_server)


def test_mps_daemon_in_the_foreground_dies_with_its_signal(
    gpu: dict[str, str], tmp_path: Path
) -> None:
    """``-f`` stays a child; SIGTERM ends it at once and leaves its files, as the real one does."""
    gpu |= {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path / "p")}
    program = state(gpu) / "bin" / "nvidia-cuda-mps-control"
    daemon = subprocess.Popen([str(program), "-f"], env=environment(gpu))
    try:
        while tool(gpu, program.name, text="get_server_list\n")[0]:
            assert daemon.poll() is None
        daemon.terminate()
        assert daemon.wait(timeout=10) == -15
    finally:
        daemon.kill()
        daemon.wait()
    assert (tmp_path / "p" / "control").exists()
    assert tool(gpu, program.name, "-d")[0] == 0
    assert tool(gpu, program.name, text="quit -t 1\n")[0] == 0


def test_mps_start_failures_are_the_observed_ones(gpu: dict[str, str], tmp_path: Path) -> None:
    """A path that is too long fails silently, a missing parent with a message, a knob at will."""
    control = "nvidia-cuda-mps-control"
    long = {**gpu, "CUDA_MPS_PIPE_DIRECTORY": str(tmp_path / ("x" * 120))}
    assert tool(long, control, "-d") == (1, "", "")
    deep = {**gpu, "CUDA_MPS_PIPE_DIRECTORY": "/nonexistent/a/b"}
    status, output, _ = tool(deep, control, "-d")
    assert (status, output) == (1, "Cannot access CUDA_MPS_PIPE_DIRECTORY=/nonexistent/a/b\n")
    broken = {
        **gpu,
        "CUDA_MPS_PIPE_DIRECTORY": str(tmp_path / "p"),
        "FAIRSHARE_VIRTUAL_FAIL": "mps_no_start",
    }
    assert tool(broken, control, "-d")[0] == 1


def test_a_second_server_that_does_not_fit_is_refused(gpu: dict[str, str]) -> None:
    """Memory that a live server holds is not there for another, until that one has gone."""
    big = ("--gpu-memory-utilization", "0.6")
    with server(*big, env=gpu) as first:
        status, log = refused(*big, env=gpu)
        assert status == 1
        assert "Free memory on device cuda:0 (16.0" in log
        first.process.kill()
        first.process.wait()
        with server(*big, env=gpu):
            pass
