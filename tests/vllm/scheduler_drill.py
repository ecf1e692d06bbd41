"""Drives vLLM's own scheduler, with ours in it, through random work; run in the engine's Python.

``python scheduler_drill.py MODEL`` makes the scheduler as the engine would, without a server, and
plays the model's part: each request gets one token in each step that ends its prompt. A KV cache of
a few blocks forces preemptions; prompts are computed in chunks; some requests are aborted, waiting
or running. With a ``lookahead`` of two the next step is scheduled before the last one's tokens are
known, as the engine does on GPUs. What each tenant was given is counted outside, token by token.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter, deque
from typing import Any

from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

BLOCK = 16


def scheduler_of(model: str, *, blocks: int, policy: dict[str, Any]) -> Any:
    """A fair scheduler over a KV cache of so many blocks."""
    import torch
    from fairshare_vllm_plugins.fair_scheduler import FairScheduler

    config = EngineArgs(
        model=model,
        max_model_len=512,
        max_num_seqs=6,
        max_num_batched_tokens=96,
        enable_chunked_prefill=True,
        enable_prefix_caching=False,
        block_size=BLOCK,
        dtype="bfloat16",
        enforce_eager=True,
    ).create_engine_config()
    config.cache_config.num_gpu_blocks = blocks
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
    os.environ["FAIRSHARE_SCHEDULER"] = json.dumps(policy)
    return FairScheduler(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
        structured_output_manager=StructuredOutputManager(config),
        block_size=BLOCK,
        log_stats=True,
    )


class Drill:
    """One random load on one scheduler."""

    def __init__(self, scheduler: Any, seed: int, lookahead: int) -> None:
        self.scheduler = scheduler
        self.random = random.Random(seed)
        self.lookahead = lookahead
        self.requests: dict[str, Request] = {}
        self.tokens: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}
        self.why: dict[str, str] = {}
        self.started: set[str] = set()
        self.aborted: set[str] = set()
        self.preemptions = 0
        self.steps = 0

    def run(self, count: int) -> None:
        """Send so many requests over a while, and serve until nothing is left."""
        in_flight: deque[tuple[SchedulerOutput, dict[str, bool]]] = deque()
        while len(self.requests) < count or self.scheduler.has_requests():
            self.steps += 1
            assert self.steps < 200 * count, "it does not end"
            if len(self.requests) < count and self.random.random() < 0.6:
                self._send()
            if self.random.random() < 0.05:
                self._abort()
            output = self.scheduler.schedule()
            self._note(output)
            samples = {
                name: not self.scheduler.requests[name].is_prefill_chunk
                for name in output.num_scheduled_tokens
            }
            in_flight.append((output, samples))
            if len(in_flight) >= self.lookahead or not output.num_scheduled_tokens:
                self._update(*in_flight.popleft())
        while in_flight:
            self._update(*in_flight.popleft())

    def _send(self) -> None:
        name = f"r{len(self.requests)}"
        tenant = self.random.choice(("heavy", "heavy", "heavy", "light"))
        labels = {"tenant": tenant} if self.random.random() < 0.95 else None
        sampling = SamplingParams(
            max_tokens=self.random.randint(1, 60), ignore_eos=True, extra_args=labels
        )
        prompt = [1] * self.random.randint(1, 150)
        request = Request(name, prompt, sampling, None)
        self.requests[name] = request
        self.scheduler.add_request(request)

    def _abort(self) -> None:
        alive = [name for name in self.requests if name in self.scheduler.requests]
        if alive:
            name = self.random.choice(alive)
            self.aborted.add(name)
            self.scheduler.finish_requests(name, RequestStatus.FINISHED_ABORTED)

    def _note(self, output: SchedulerOutput) -> None:
        self.started |= set(output.num_scheduled_tokens)
        self.preemptions = sum(each.num_preemptions for each in self.requests.values())

    def _update(self, output: SchedulerOutput, samples: dict[str, bool]) -> None:
        names = list(output.num_scheduled_tokens)
        made = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: index for index, name in enumerate(names)},
            sampled_token_ids=[[7] if samples[name] else [] for name in names],
        )
        for client in self.scheduler.update_from_output(output, made).values():
            for one in client.outputs:
                self.tokens[one.request_id] += len(one.new_token_ids)
                if one.finish_reason is not None:
                    self.reasons[one.request_id] = str(one.finish_reason)
                    self.why[one.request_id] = str(one.stop_reason)

    def owed(self) -> dict[str, float]:
        """What each tenant must have been charged: prompts once, two for each token."""
        owed: Counter[str] = Counter()
        for name, request in self.requests.items():
            if name in self.started:
                labels = request.sampling_params.extra_args or {"tenant": "default"}
                owed[labels["tenant"]] += request.num_prompt_tokens + 2 * self.tokens[name]
        return dict(owed)


def exact(model: str, lookahead: int) -> dict[str, Any]:
    """Counters equal what was given, to the token, whatever happened to the requests."""
    scheduler = scheduler_of(model, blocks=25, policy={"policy": "lcf"})
    drill = Drill(scheduler, seed=lookahead, lookahead=lookahead)
    drill.run(150)
    for name, request in drill.requests.items():
        if name not in drill.aborted:
            assert drill.tokens[name] == request.max_tokens, name
            assert drill.reasons[name] == "length", name
    charged = {k: v for k, v in scheduler.waiting.counters().items() if v}
    assert charged == drill.owed(), (charged, drill.owed())
    assert len(scheduler.waiting) == 0
    return {
        "steps": drill.steps,
        "preemptions": drill.preemptions,
        "aborted": len(drill.aborted),
        "charged": charged,
    }


def refusals(model: str) -> int:
    """A policy's refusals end requests with the reason, with or without others to serve."""
    scheduler = scheduler_of(model, blocks=25, policy={"policy": "rpm", "options": {"limit": 3}})
    drill = Drill(scheduler, seed=5, lookahead=2)
    drill.run(30)
    refused = [name for name, reason in drill.reasons.items() if reason == "abort"]
    assert set(drill.reasons) == set(drill.requests) - drill.aborted
    assert not any(drill.tokens[name] for name in refused)
    assert all(drill.why[name].startswith("throttled: ") for name in refused)
    assert not scheduler.requests
    return len(refused)


def of_another_version() -> str:
    """What is said to a vLLM that nobody has tried."""
    import vllm
    from fairshare_vllm_plugins.interface import UnsupportedVersionError, installed_scheduler

    known, vllm.__version__ = vllm.__version__, "9.9"
    try:
        installed_scheduler()
    except UnsupportedVersionError as error:
        return str(error)
    finally:
        vllm.__version__ = known
    return ""


if __name__ == "__main__":
    import vllm

    told: dict[str, Any] = {str(ahead): exact(sys.argv[1], ahead) for ahead in (1, 2)}
    told |= {"vllm": vllm.__version__, "refused": refusals(sys.argv[1])}
    print(json.dumps(told | {"of another version": of_another_version()}))
