"""Who counts as somebody else on the GPU, and when."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fairshare.devices.nvml import GpuProcess, NvmlUnavailableError
from fairshare.processes.labelled import RUN_LABEL
from fairshare.runner.foreign import ForeignWatch

GIB = 1024**3
NOWHERE = 2**22 + 1  # beyond the largest pid that Linux gives
CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], env={})"


class _Gpu:
    """Lists these pids, each with a GiB."""

    def __init__(self, *pids: int) -> None:
        self.pids: tuple[int, ...] | None = pids
        self.asked = 0
        self.asked_often = threading.Event()

    def __call__(self) -> Sequence[GpuProcess]:
        self.asked += 1
        if self.asked == 5:
            self.asked_often.set()
        if self.pids is None:
            raise NvmlUnavailableError("it is away")
        return [GpuProcess(pid, GIB) for pid in self.pids]


@contextmanager
def process(code: str = "input()", run: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A process of that run, or of nobody's."""
    env = {**os.environ, RUN_LABEL: run}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdin=subprocess.PIPE) as child:
        yield child


def test_one_that_computes_in_the_window_is_found() -> None:
    """Pid, name and memory of a process that is not the run's are kept, gone or not."""
    with process() as other:
        gpu = _Gpu()
        watch = ForeignWatch(gpu, "run-1")
        watch.look()
        watch.enter("measure")
        gpu.pids = (other.pid,)
        watch.look()
        gpu.pids = ()
        watch.look()
    (told,) = watch.found.values()
    assert told.startswith(f"pid {other.pid} (python")
    assert "1 GiB" in told


def test_outside_of_the_window_nobody_is_counted() -> None:
    """Who comes in the warm-up and stays counts from the window's start; who left does not."""
    with process() as early, process() as late:
        gpu = _Gpu(early.pid, late.pid)
        watch = ForeignWatch(gpu, "run-1")
        watch.enter("warmup")
        watch.look()
        gpu.pids = (late.pid,)
        watch.look()
        assert not watch.found
        watch.enter("measure")
        assert list(watch.found) == [late.pid]
        watch.enter("drain")
        gpu.pids = (early.pid,)
        watch.look()
    assert list(watch.found) == [late.pid]


def test_processes_of_the_run_are_expected() -> None:
    """The run's label, or a parent that carries it (as the MPS server's does), is ours."""
    with process(CHILD, run="run-1") as ours, process(run="run-2") as others:
        child = _child_of(ours.pid)
        gpu = _Gpu(ours.pid, child, others.pid)
        watch = ForeignWatch(gpu, "run-1")
        watch.enter("measure")
        watch.look()
        assert list(watch.found) == [others.pid]


def _child_of(pid: int) -> int:
    path = f"/proc/{pid}/task/{pid}/children"
    while True:
        with open(path) as file:  # noqa: PTH123
            if children := file.read().split():
                return int(children[0])


def test_numbers_that_mean_nothing_here_are_the_servers_at_first() -> None:
    """In a container the servers' own numbers are unknown; one that comes later is not theirs."""
    gpu = _Gpu(NOWHERE)
    watch = ForeignWatch(gpu, "run-1")
    watch.look()
    watch.enter("measure")
    assert not watch.found
    gpu.pids = (NOWHERE, NOWHERE + 1)
    watch.look()
    assert list(watch.found) == [NOWHERE + 1]
    assert "not visible" in watch.found[NOWHERE + 1]


async def test_watching_looks_until_the_block_ends() -> None:
    """It looks at once, again and again, and a last time at the end."""
    gpu = _Gpu()
    async with ForeignWatch(gpu, "run-1").watching(0.001) as reason:
        assert reason is None
        assert await asyncio.to_thread(gpu.asked_often.wait, 10)
    assert gpu.asked >= 6


async def test_a_device_that_does_not_tell_is_not_watched() -> None:
    """Without NVML nothing is asked again, and the reason is given."""
    gpu = _Gpu()
    gpu.pids = None
    async with ForeignWatch(gpu, "run-1").watching(0.001) as reason:
        assert reason == "it is away"
    assert gpu.asked == 1
