"""Many streams at once on one core: none is lost, and memory grows with what is kept alone."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fairshare.records import TransportKind

HERE = Path(__file__).parent
MOCK_SERVER = HERE.parents[1] / "benchmarks" / "mock_server.c"
SPARE_DESCRIPTORS = 200
BOTH = [TransportKind.STREAM, TransportKind.AIOHTTP]
TOKENS = 16


@pytest.fixture(scope="module")
def mock_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The benchmarks' server, which holds any number of streams on its core."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to build the mock server with")
    program = tmp_path_factory.mktemp("mock") / "mock_server"
    subprocess.run([compiler, "-O2", "-o", program, MOCK_SERVER], check=True)
    return program


@contextmanager
def serving(program: Path, ttft_ms: int, itl_ms: int) -> Iterator[str]:
    """The port of a server on the first core."""
    command = [str(program), "--ttft-us", f"{ttft_ms}000", "--itl-us", f"{itl_ms}000"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        os.sched_setaffinity(server.pid, {min(os.sched_getaffinity(0))})
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()


def client(port: str, streams: int, requests: int, *more: str) -> dict[str, Any]:
    """What the driver, in a process of its own on the last core, says of its run."""
    command = [sys.executable, HERE / "scale_client.py", port, str(streams), str(requests)]
    done = subprocess.run([*command, str(TOKENS), *more], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check_streams(mock_server: Path, streams: int, transport: TransportKind, pace_ms: int) -> None:
    """All streams are open at once, and each gives one whole record."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit < streams + SPARE_DESCRIPTORS:
        pytest.skip(f"{streams} streams need as many open files, and {limit} are allowed")
    with serving(mock_server, ttft_ms=pace_ms, itl_ms=pace_ms) as port:
        found = client(port, streams, streams, transport.value)
    assert found["errors"] == {}
    assert found["lost"] == 0
    assert found["records"] == found["ok"] >= streams
    assert found["chunks"] == found["records"] * TOKENS
    assert found["client"]["concurrency"]["a"]["peak"] == streams
    assert found["client"]["tokens"]["a"]["differing_requests"] == 0
    assert found["peak_rss_kib"] < 150_000 + 40 * streams


@pytest.mark.parametrize("transport", BOTH)
def test_500_streams_at_once_lose_nothing(mock_server: Path, transport: TransportKind) -> None:
    """Every one of 500 open streams is read to its end, token by token."""
    check_streams(mock_server, 500, transport, pace_ms=200)


@pytest.mark.full
@pytest.mark.timeout(400)
@pytest.mark.parametrize("transport", BOTH)
def test_10000_streams_at_once_lose_nothing(mock_server: Path, transport: TransportKind) -> None:
    """The same with 10,000 on one core."""
    check_streams(mock_server, 10_000, transport, pace_ms=1000)


def test_memory_grows_with_what_is_kept_and_with_nothing_else(mock_server: Path) -> None:
    """A record that was handed over is forgotten; kept ones cost the same each."""
    with serving(mock_server, ttft_ms=0, itl_ms=0) as port:
        few, many = (client(port, 20, n, "stream") for n in (300, 3000))
        kept = client(port, 20, 3000, "stream", "keep")
    for_each_kib = (kept["end_rss_kib"] - many["end_rss_kib"]) / kept["records"]
    assert 0.4 < for_each_kib < 4
    growth_kib = (many["end_rss_kib"] - few["end_rss_kib"]) / (many["records"] - few["records"])
    assert growth_kib < 0.4
