"""How real vLLM servers fail, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from vllm_bench import VllmBench

from fairshare.errors import ServerError, SpecError
from fairshare.processes.ports import is_free
from fairshare.serving.arguments import check_arguments
from fairshare.serving.server import ServerState

pytestmark = [
    pytest.mark.vllm_cpu,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]


async def _log_says(path: Path, text: str) -> None:
    async with asyncio.timeout(120):
        while not path.exists() or text not in path.read_text("utf-8", "replace"):  # noqa: ASYNC110, ASYNC240  (a log cannot be awaited)
            await asyncio.sleep(0.1)


async def test_an_orphaned_engine_is_ended(bench: VllmBench) -> None:
    """VLLM's engine survives a killed API server; the death is noticed, and stopping ends it."""
    async with bench.fleet() as running:
        server = running.servers["a"]
        pids = server.pids()
        assert server.process is not None
        os.kill(server.process.pid, signal.SIGKILL)
        await asyncio.wait_for(server.died.wait(), 10)
        assert running.dead() is server
        assert "was killed by SIGKILL" in server.diagnosis().message
        assert server.pids(), "the engine is expected to outlive its API server"
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert is_free(int(server.base_url.rsplit(":", 1)[1]))
    assert not bench.scope.slot_dir("a").exists()


async def test_a_killed_engine_is_noticed(bench: VllmBench) -> None:
    """A server whose engine was killed is dead, although vLLM then exits with code 0."""
    async with bench.fleet() as running:
        server = running.servers["a"]
        assert server.process is not None
        children = psutil.Process(server.process.pid).children(recursive=True)
        (engine,) = [child for child in children if "EngineCor" in child.name()]
        engine.kill()
        await asyncio.wait_for(server.died.wait(), 15)
        assert server.state is ServerState.FAILED
        assert "503" in server.diagnosis().message or "code 0" in server.diagnosis().message


async def test_stopping_while_the_engine_comes_up_leaves_nothing(bench: VllmBench) -> None:
    """VLLM ignores SIGTERM while its engine starts; an interrupted start is ended all the same."""
    log = bench.logs / "a.log"
    log.unlink(missing_ok=True)
    task = asyncio.create_task(bench.fleet().__aenter__())
    await _log_says(log, "Initializing a V1 LLM engine")
    spawned = [event for event in bench.events if event["event"] == "process.spawned"][-1]
    pids = [child.pid for child in psutil.Process(spawned["pid"]).children(recursive=True)]
    started_s = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - started_s < 15
    assert pids
    assert not [pid for pid in [spawned["pid"], *pids] if psutil.pid_exists(pid)]
    assert not bench.scope.slot_dir("a").exists()


async def test_a_start_that_vllm_refuses_is_diagnosed(bench: VllmBench) -> None:
    """What only the engine can know is wrong is quoted from its log, not its last line."""
    with pytest.raises(ServerError) as caught:
        async with bench.fleet(args={"max_num_batched_tokens": 1, "max_num_seqs": 32}):
            pytest.fail("it was said to be ready")
    assert "exited with code 1 before it was ready" in caught.value.message
    assert "max_num_batched_tokens" in caught.value.message
    assert len(caught.value.evidence) == 40


async def test_mistakes_are_told_before_anything_starts(bench: VllmBench) -> None:
    """Arguments that the engine does not have, or the model cannot meet, cost no start."""
    before = len(bench.events)
    for args, says in (
        ({"max_model_length": 10}, "did you mean max_model_len?"),
        ({"dtype": "bfloat61"}, "did you mean bfloat16?"),
        ({"max_num_seqs": "many"}, "wants a whole number"),
        ({"max_model_len": 99999}, "but model tiny has 8192"),
        ({"kv_cache_memory_bytes": "1M"}, "needs 16 MiB of KV cache"),
    ):
        with pytest.raises(SpecError) as caught:
            async with bench.fleet(args=args):
                pytest.fail("it was started")
        assert says in str(caught.value)
    assert len(bench.events) == before


async def test_the_engine_is_asked_for_its_options_only_once(
    bench: VllmBench, vllm_python: str
) -> None:
    """Once the options are known, checking the shipped launcher takes less than 0.1 s."""
    check_arguments(bench.launcher, vllm_python)
    started_s = time.perf_counter()
    check_arguments(bench.launcher, vllm_python)
    assert time.perf_counter() - started_s < 0.1
