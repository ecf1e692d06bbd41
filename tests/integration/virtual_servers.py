"""Real virtual servers as child processes, for tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

START_S = 20


@dataclass
class Running:
    """A server that has said that it serves."""

    process: subprocess.Popen[str]
    url: str

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self.process.wait(timeout=START_S)


def command(*options: str, port: int = 0) -> list[str]:
    """A server's command line; no time passes in its front end."""
    return [
        sys.executable, "-m", "fairshare.virtual.server", "--port", str(port),
        "--model", "qwen3-0.6b", "--max-model-len", "2048", "--front-end-s", "0", *options,
    ]  # fmt: skip


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without what would bind a server to some GPU."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("FAIRSHARE", "CUDA"))}
    return {**env, "VLLM_API_KEY": "", **(extra or {})}


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def server(*options: str, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """A server, ready to answer; killed at the end if the test has not stopped it."""
    port = free_port()
    process = subprocess.Popen(
        command(*options, port=port), env=environment(env), stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "serving" in line, line
        yield Running(process, f"http://127.0.0.1:{port}")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def refused(*options: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit status and log of a server that does not come up."""
    done = subprocess.run(
        command(*options),
        env=environment(env),
        stderr=subprocess.PIPE,
        text=True,
        timeout=START_S,
        check=False,
    )
    return done.returncode, done.stderr


def body(**fields: Any) -> dict[str, Any]:
    """A streaming completion request with everything that vLLM can be asked for."""
    return {
        "prompt": [1, 2, 3],
        "max_tokens": 8,
        "stream": True,
        "ignore_eos": True,
        "return_token_ids": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        **fields,
    }


async def events(response: aiohttp.ClientResponse) -> list[Any]:
    """All events of a stream, parsed; the last is the string [DONE]."""
    found: list[Any] = []
    async for line in response.content:
        data = line.strip().removeprefix(b"data: ")
        if data:
            found.append("[DONE]" if data == b"[DONE]" else json.loads(data))
    return found


async def gauges(session: aiohttp.ClientSession, url: str) -> dict[str, float]:
    """The server's metrics by name, without labels."""
    async with session.get(f"{url}/metrics") as response:
        lines = (await response.text()).splitlines()
    return {
        line.split("{")[0]: float(line.rsplit(" ", 1)[1])
        for line in lines
        if not line.startswith("#")
    }


def reports(state: Path) -> list[dict[str, Any]]:
    """What the servers say of themselves."""
    return [json.loads(path.read_text()) for path in (state / "servers").iterdir()]
