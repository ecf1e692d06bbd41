"""The fake server as a program starts, serves, fails and ends as an engine would."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import psutil


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def start(port: int, *arguments: str, env: dict[str, str] | None = None):  # type: ignore[no-untyped-def]  # asyncio's Process
    """The program, started."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fairshare.testing.fake_server", "--port", str(port), *arguments),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )


@asynccontextmanager
async def serving(*arguments: str, env: dict[str, str] | None = None) -> AsyncIterator:  # type: ignore[type-arg]  # (process, URL)
    """The program, listening; killed afterwards if it still runs."""
    port = free_port()
    process = await start(port, *arguments, env=env)
    try:
        line = await process.stderr.readline()
        assert b"listens on" in line
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def status(url: str, **fields: object) -> int:
    """The status of a GET, or of a POST where a body is given."""
    async with aiohttp.ClientSession() as session:
        method = session.post if "json" in fields else session.get
        async with method(url, **fields) as response:
            await response.read()
            return response.status


async def test_it_serves_and_ends_when_asked() -> None:
    """Health, metrics under vLLM's names, and exit code 0 on SIGTERM."""
    async with serving() as (process, url):
        assert await status(f"{url}/health") == 200
        async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
            assert 'vllm:num_requests_running{engine="0",model_name="fake"} 0' in (
                await response.text()
            )
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_it_asks_for_the_key_of_its_environment() -> None:
    """With VLLM_API_KEY set, /v1 needs the key and /health does not, as in vLLM."""
    async with serving(env={"VLLM_API_KEY": "sk-1"}) as (_, url):
        assert await status(f"{url}/v1/models") == 401
        assert await status(f"{url}/v1/models", headers={"Authorization": "Bearer sk-1"}) == 200
        assert await status(f"{url}/health") == 200


async def test_death_at_the_start_leaves_a_traceback() -> None:
    """An engine that cannot start exits 1 with an error line to quote."""
    process = await start(free_port(), "--behaviour", "die_at_start")
    _, stderr = await process.communicate()
    assert process.returncode == 1
    assert b"RuntimeError: the fake engine was told to die at its start" in stderr


async def test_port_in_use_ends_it_like_an_engine() -> None:
    """Two on one port: the second exits 1 and says why."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = await start(taken.getsockname()[1])
        _, stderr = await process.communicate()
    assert process.returncode == 1
    assert b"address already in use" in stderr


async def test_unknown_argument_ends_it_like_an_engine() -> None:
    """Bad flags exit 2 with the parser's message."""
    process = await start(free_port(), "--no-such-flag")
    _, stderr = await process.communicate()
    assert process.returncode == 2
    assert b"unrecognized arguments: --no-such-flag" in stderr


async def test_it_is_never_ready_when_told() -> None:
    """Health says 503 although the port is open."""
    async with serving("--behaviour", "never_ready") as (_, url):
        assert await status(f"{url}/health") == 503


async def test_it_dies_after_its_good_answers() -> None:
    """After the given number of answers the process ends in the middle of one."""
    body = {"model": "fake", "prompt": [1], "max_tokens": 2}
    async with serving("--behaviour", "die_after_requests", "--after", "1") as (process, url):
        assert await status(f"{url}/v1/completions", json=body) == 200
        try:
            await status(f"{url}/v1/completions", json=body)
        except aiohttp.ClientError:
            assert await process.wait() == 1
        else:
            raise AssertionError("the second answer came")


async def test_leaked_child_outlives_it() -> None:
    """The child that is left behind ignores its parent's end, and SIGTERM."""
    async with serving("--behaviour", "leak_child") as (process, _):
        (child,) = psutil.Process(process.pid).children()
        try:
            process.kill()
            await process.wait()
            assert child.is_running()
        finally:
            child.kill()
