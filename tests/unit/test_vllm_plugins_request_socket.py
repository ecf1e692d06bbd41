"""Requests without HTTP: both ends of the socket, with a small model of vLLM's engine between."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fairshare.load.ahead import Prepared, RequestQueue
from fairshare.load.exchange import perform
from fairshare.load.lane import Lane
from fairshare.load.target import Target
from fairshare.load.transport import Transport
from fairshare.load.transports import transport_to
from fairshare.records import ErrorKind, Phase, RequestRecord
from fairshare.spec.scenario import Api
from fairshare.spec.workload import Sampling
from fairshare.vllm_plugins import request_socket
from fairshare.vllm_plugins.request_socket import SOCKET_VARIABLE, listen, register
from fairshare.workload.requests import PlannedRequest

PLANNED = PlannedRequest("1", "a", None, [7, 8, 9], None, 3, 4)
# What the engine gives for a request: tokens of each output, the last with its finish reason.
OUTPUTS = [[1], [2, 3], [4]]


@dataclass
class Engine:
    """An engine's client that gives the same outputs to everybody, and knows what it was asked."""

    outputs: list[list[int]] = field(default_factory=lambda: OUTPUTS)
    fails: Exception | None = None
    hangs: bool = False
    asked: list[tuple[Any, Any, int]] = field(default_factory=list)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    aborted: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def model_config(self) -> Any:
        """With a default of the model's own."""
        return SimpleNamespace(get_diff_sampling_param=lambda: {"top_k": 5, "temperature": 0.5})

    async def generate(
        self, prompt: Any, sampling: Any, request_id: str, *, priority: int
    ) -> AsyncIterator[Any]:
        """Outputs as vLLM's: the prompt's tokens and what of them was cached with the first."""
        self.asked.append((prompt, sampling, priority))
        for number, tokens in enumerate(self.outputs):
            first, last = number == 0, number == len(self.outputs) - 1
            yield SimpleNamespace(
                prompt_token_ids=[7, 8, 9] if first else None,
                num_cached_tokens=2 if first else 0,
                finished=last,
                outputs=[
                    SimpleNamespace(
                        token_ids=tokens,
                        finish_reason="length" if last else None,
                        stop_reason=None,
                    )
                ],
            )
            if self.fails is not None:
                raise self.fails
            if self.hangs:
                self.hanging.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.aborted.set()


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two classes of vLLM that a request needs."""
    module = ModuleType("vllm.sampling_params")
    module.SamplingParams = lambda **values: values  # type: ignore[attr-defined]
    module.RequestOutputKind = SimpleNamespace(DELTA="delta", FINAL_ONLY="final")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the socket will be."""
    return str(tmp_path_factory.mktemp("s") / "s")


def target(path: str) -> Target:
    """A tenant of the engine at that socket."""
    where = f"unix:{path}"
    return Target("a", "s", where, "m", Api.COMPLETIONS, True, "key", True, True, Sampling(), 5, 5)


@asynccontextmanager
async def client(engine: Engine, path: str) -> AsyncIterator[Transport]:
    """A transport to an engine that listens."""
    server = await listen(engine, path)
    assert server is not None
    transport = transport_to(f"unix:{path}")
    try:
        yield transport
    finally:
        await transport.close()
        server.close()


async def ask(
    transport: Transport, to: Target, origin_ns: int = 0, request: Prepared | None = None
) -> RequestRecord:
    """One request of the tenant, and what became of it."""
    record = RequestRecord("1", "a", "s", Phase.MEASURE, 0)
    queue = RequestQueue(to, iter(()), ahead=1, on_error=lambda error: None)
    lane = Lane(to, transport, to.headers(), queue)
    await perform(lane, request or Prepared("1", None, to.body(PLANNED), 4), record, origin_ns)
    return record


async def test_records_have_the_engines_own_times_and_counts(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every output is a chunk at the moment in which the engine gave it, whole in every number."""
    moments = iter((1000, 1500, 2500))
    async with client(Engine(), path) as transport:
        monkeypatch.setattr(request_socket, "time", SimpleNamespace(monotonic_ns=moments.__next__))
        record = await ask(transport, target(path), origin_ns=100)
    assert record.error is None
    assert record.first_token_ns == 900
    assert (record.chunk_ns, record.chunk_tokens) == ([900, 1400, 2400], [1, 2, 1])
    assert record.end_ns == 2400
    assert (record.prompt_tokens, record.cached_tokens, record.output_tokens) == (3, 2, 4)
    assert record.finish_reason == "length"
    assert record.status is record.headers_ns is None  # nothing of HTTP was there


async def test_the_engine_is_asked_what_the_server_would_ask(path: str) -> None:
    """The request's sampling goes over the model's defaults; ids, priority and labels as given."""
    engine, to = Engine(), target(path)
    async with client(engine, path) as transport:
        await ask(transport, to)
        whole = replace(
            to,
            stream=False,
            sampling=Sampling(ignore_eos=False, top_p=0.9),
            priority=-3,
            labelled=True,
        )
        await ask(transport, whole)
    (prompt, sampling, priority), (_, other, urgent) = engine.asked
    assert prompt == {"type": "token", "prompt_token_ids": [7, 8, 9]}
    assert sampling == {
        "top_k": 5, "temperature": 0.0, "max_tokens": 4, "min_tokens": 4, "ignore_eos": True,
        "output_kind": "delta",
    }  # fmt: skip
    assert (other["top_p"], other["output_kind"]) == (0.9, "final")
    assert "ignore_eos" not in other
    assert other["extra_args"] == {"tenant": "a"}
    assert (priority, urgent) == (0, -3)


async def test_connections_are_opened_ahead_and_used_again(path: str) -> None:
    """Two requests at once are answered on two connections, and the next ones open no other."""
    made: list[str] = []
    async with client(Engine(), path) as transport:
        await transport.prepare(2)
        os.unlink(path)  # noqa: PTH108  (from here on nobody can connect)
        for _ in range(2):
            records = await asyncio.gather(*(ask(transport, target(path)) for _ in range(2)))
            made += [str(record.error) for record in records]
    assert made == ["None"] * 4


async def test_a_cancelled_request_is_aborted(path: str) -> None:
    """Who cancels leaves no generation behind, and the next request is answered."""
    engine = Engine(hangs=True)
    async with client(engine, path) as transport:
        asking = asyncio.create_task(ask(transport, target(path)))
        await asyncio.wait_for(engine.hanging.wait(), 5)
        asking.cancel()
        assert (await asking).error is ErrorKind.UNFINISHED
        await asyncio.wait_for(engine.aborted.wait(), 5)
        engine.hangs = False
        assert (await ask(transport, target(path))).error is None


async def test_what_the_engine_refuses_is_told(path: str) -> None:
    """An engine's error ends its request with that text, and none of the others."""
    engine = Engine(fails=ValueError("the prompt is too long"))
    async with client(engine, path) as transport:
        record = await ask(transport, target(path))
        engine.fails = None
        assert (await ask(transport, target(path))).error is None
    assert record.error is ErrorKind.SERVER_ERROR
    assert record.error_text == "the prompt is too long"


async def test_what_only_the_server_can_do_is_refused(path: str) -> None:
    """A field of a request that would be ignored in silence is an error instead."""
    engine = Engine()
    echo = Prepared("1", None, b'{"stream": true, "prompt": "x", "echo": true}', 4)
    async with client(engine, path) as transport:
        record = await ask(transport, target(path), request=echo)
    assert record.error_text == "without HTTP there is no echo"
    assert engine.asked == []


async def test_an_engine_that_is_gone_is_told(path: str) -> None:
    """Without a socket a request cannot connect; when the process closes it, it is disconnected."""
    transport = transport_to(f"unix:{path}")
    record = await ask(transport, target(path))
    assert (record.error, record.sent_ns is not None) == (ErrorKind.CONNECT, True)
    assert path in (record.error_text or "")

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with await asyncio.start_unix_server(close, path):
        assert (await ask(transport, target(path))).error is ErrorKind.DISCONNECT
    await transport.close()


async def test_events_are_whole_however_they_are_cut(path: str) -> None:
    """An answer that arrives byte by byte is the same answer."""
    event = b'data: {"choices":[{"token_ids":[1],"finish_reason":"stop"}],"usage":'
    event += b'{"prompt_tokens":3,"completion_tokens":1}}\n\ndata: [DONE]\n\n'
    frame = (500).to_bytes(8, "big") + len(event).to_bytes(4, "big") + event

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4), "big")
        await reader.readexactly(length)
        for number in range(len(frame)):
            writer.write(frame[number : number + 1])
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async with await asyncio.start_unix_server(trickle, path):
        transport = transport_to(f"unix:{path}")
        record = await ask(transport, target(path))
        await transport.close()
    assert record.error is None
    assert (record.chunk_ns, record.output_tokens) == ([500], 1)


class AsyncLLM(Engine):
    """The class whose making is what the plugin waits for."""


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, path: str) -> Callable[[], type[AsyncLLM]]:
    """The module of vLLM with a class of its own, and the variable that asks for a socket."""
    fresh = type("AsyncLLM", (AsyncLLM,), {"__init__": Engine.__init__})
    module = ModuleType("vllm.v1.engine.async_llm")
    module.AsyncLLM = fresh  # type: ignore[attr-defined]
    for name in ("vllm.v1", "vllm.v1.engine"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv(SOCKET_VARIABLE, path)
    return lambda: fresh


async def test_an_engine_listens_once_it_is_made(
    installed: Callable[[], type[AsyncLLM]], path: str
) -> None:
    """Registered in vLLM's process, the plugin needs nothing but the making of the engine."""
    register()
    register()  # vLLM may call it again
    engine = installed()()
    await engine._fairshare_listening  # type: ignore[attr-defined]
    transport = transport_to(f"unix:{path}")
    assert (await ask(transport, target(path))).output_tokens == 4
    await transport.close()


async def test_a_socket_that_cannot_be_made_leaves_the_engine_running(
    installed: Callable[[], type[AsyncLLM]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A folder that is not there costs the socket and a line in the log, not the server."""
    monkeypatch.setenv(SOCKET_VARIABLE, "/nowhere/s")
    register()
    engine = installed()()
    assert await engine._fairshare_listening is None  # type: ignore[attr-defined]
    assert "no socket for requests" in caplog.text


@pytest.mark.parametrize("why", ["not asked", "a child"])
def test_nothing_is_changed_where_nobody_listens(
    installed: Callable[[], type[AsyncLLM]], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Servers that are asked over HTTP, and the engine's own processes, stay what they are."""
    if why == "not asked":
        monkeypatch.delenv(SOCKET_VARIABLE)
    else:
        monkeypatch.setattr(multiprocessing, "parent_process", lambda: "the server")
    before = installed().__init__
    register()
    assert installed().__init__ is before
