"""Servers that somebody else runs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fairshare.errors import PreflightError, ServerError, SpecError
from fairshare.events import EventLog
from fairshare.processes.ports import free_port
from fairshare.serving.external import external_servers
from fairshare.serving.probes import get, new_session
from fairshare.serving.server import ServerState
from fairshare.spec.launcher import Launcher

STUB = Path(__file__).with_name("serving_stub.py")


@asynccontextmanager
async def _somebody_elses(
    tmp_path: Path, key: str | None = None, do: str = "serve"
) -> AsyncIterator[str]:
    port = free_port()
    env = {"TMPDIR": str(tmp_path)} | ({"STUB_KEY": key} if key else {})
    arguments = [str(STUB), "--port", str(port), "--served-model-name", "theirs", "--do", do]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=env)
    url = f"http://127.0.0.1:{port}"
    try:
        async with new_session() as session, asyncio.timeout(20):
            while await get(session, f"{url}/health", None) is None:  # noqa: ASYNC110  (its start)
                await asyncio.sleep(0.02)
        yield url
    finally:
        process.kill()
        await process.wait()


def _launcher(**endpoints: dict[str, Any]) -> Launcher:
    values = {"name": "theirs", "engine": "external", "endpoints": endpoints}
    return Launcher.model_validate(values)


async def test_tenants_reach_the_servers_named_for_them(tmp_path: Path) -> None:
    """A tenant is sent to the endpoint of its name or the default one; nothing is started."""
    async with _somebody_elses(tmp_path) as url:
        launcher = _launcher(default={"url": f"{url}/v1"}, chat={"url": url, "model": "theirs"})
        servers, by_tenant = await external_servers(launcher, ["chat", "batch"], EventLog())
    assert by_tenant == {"chat": "chat", "batch": "default"}
    assert [server.base_url for server in servers.values()] == [url, url]
    assert {server.served_model for server in servers.values()} == {"theirs"}
    assert servers["chat"].state is ServerState.READY
    assert servers["chat"].pids() == []


async def test_a_tenant_without_an_endpoint_is_named() -> None:
    """A tenant that no endpoint serves is an error that says what to add."""
    with pytest.raises(SpecError, match="no endpoint for tenant batch") as caught:
        await external_servers(_launcher(chat={"url": "http://x"}), ["chat", "batch"], EventLog())
    assert "endpoints.batch.url" in (caught.value.hint or "")


async def test_an_endpoint_that_nobody_serves_is_told() -> None:
    """An address where nobody answers is an error that quotes it."""
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServerError, match=f"nobody answers at {url}/v1/models"):
        await external_servers(_launcher(default={"url": url}), ["a"], EventLog())


async def test_an_endpoint_that_is_no_server_is_told(tmp_path: Path) -> None:
    """Something that does not list models is not taken for a server."""
    async with _somebody_elses(tmp_path, do="html") as url:
        with pytest.raises(ServerError, match="no list of models"):
            await external_servers(_launcher(default={"url": url}), ["a"], EventLog())


async def test_a_model_that_is_not_served_is_named(tmp_path: Path) -> None:
    """A mistyped model gets the closest one that is served."""
    async with _somebody_elses(tmp_path) as url:
        launcher = _launcher(default={"url": url, "model": "their"})
        with pytest.raises(SpecError, match="did you mean theirs"):
            await external_servers(launcher, ["a"], EventLog())


async def test_keys_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable's key is used; an unset variable and a wrong key are told apart."""
    async with _somebody_elses(tmp_path, key="right") as url:
        launcher = _launcher(default={"url": url, "api_key_env": "THEIR_KEY"})
        monkeypatch.delenv("THEIR_KEY", raising=False)
        with pytest.raises(PreflightError, match="THEIR_KEY, which is not set"):
            await external_servers(launcher, ["a"], EventLog())
        monkeypatch.setenv("THEIR_KEY", "wrong")
        with pytest.raises(ServerError, match="wants another key"):
            await external_servers(launcher, ["a"], EventLog())
        monkeypatch.setenv("THEIR_KEY", "right")
        servers, _ = await external_servers(launcher, ["a"], EventLog())
        assert servers["default"].api_key == "right"
