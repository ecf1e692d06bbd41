"""CUDA programs that the tests start and watch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import orjson

from fairshare.devices.nvml import Gpu
from tests.workplace import ROOT

MPS_NOT_READY = 807  # its server starts, or has just lost its last client to a fault
_ATTEMPTS = 100  # of a tenth of a second or more each: a program takes that long to start


class Client:
    """A running CUDA program of `cuda_client`; ``seen`` is what it sees of the GPU."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.seen = self.line()
        self.pid: int = self.seen.get("pid", process.pid)

    def at_work(self) -> Client:
        """Return once its kernel is in flight."""
        assert self.line() == {"running": True}
        return self

    def synchronise(self) -> dict[str, Any]:
        """Have one that holds synchronise; what it said of it."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self.line()

    def line(self) -> dict[str, Any]:
        """The next line that it prints."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, f"the CUDA program ended with code {self.process.wait()}"
        found: dict[str, Any] = orjson.loads(said)
        return found

    def end(self) -> dict[str, Any]:
        """Let it go, and return what it said of its work."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        said = self.line()
        self.process.wait()
        return said


@contextmanager
def running(arguments: tuple[str, ...], gpu: Gpu, env: dict[str, str]) -> Iterator[Client]:
    """One program, killed when the block ends."""
    with ExitStack() as stack:
        for _ in range(_ATTEMPTS):
            process = stack.enter_context(_started(arguments, gpu, env))
            client = Client(process)
            if client.seen.get("code") != MPS_NOT_READY:
                break
        assert "error" not in client.seen, client.seen
        yield client


@contextmanager
def _started(
    arguments: tuple[str, ...], gpu: Gpu, env: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.gpu.cuda_client", *arguments],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu.uuid, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
