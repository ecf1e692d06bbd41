"""What a step of vLLM's scheduler costs, its own and ours; run in the engine's Python.

``python engine_steps.py MODEL TENANTS``: both schedulers serve 16 streams, with as many waiting
behind them, on a cache that is large enough. No model runs: each stream gets a token in each step.
Rounds of both alternate. Prints, for each, the microseconds of a step (schedule and update).
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import time
from typing import Any

import torch
from fairshare_vllm_plugins.fair_scheduler import FairScheduler
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

STREAMS, WAITING, OUTPUT, STEPS, ROUNDS, BLOCK, BLOCKS = 16, 16, 64, 1000, 9, 32, 4096


class Bench:
    """One scheduler under a load that never ends."""

    def __init__(self, kind: type[Any], model: str, tenants: int) -> None:
        config = EngineArgs(
            model=model,
            max_model_len=512,
            max_num_seqs=STREAMS,
            block_size=BLOCK,
            enable_prefix_caching=False,
            enforce_eager=True,
        ).create_engine_config()
        config.cache_config.num_gpu_blocks = BLOCKS
        spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
        self.scheduler = kind(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(BLOCKS, [], [KVCacheGroupSpec(["layer"], spec)]),
            structured_output_manager=StructuredOutputManager(config),
            block_size=BLOCK,
            log_stats=True,
        )
        self._tenants = tenants
        self._numbers = itertools.count()

    def round_us(self) -> float:
        """The mean of a step in many."""
        begun = time.perf_counter()
        for _ in range(STEPS):
            self._step()
        return (time.perf_counter() - begun) / STEPS * 1e6

    def _step(self) -> None:
        scheduler = self.scheduler
        while len(scheduler.waiting) < WAITING:
            self._send()
        output = scheduler.schedule()
        names = list(output.num_scheduled_tokens)
        made = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: index for index, name in enumerate(names)},
            sampled_token_ids=[[7]] * len(names),
        )
        scheduler.update_from_output(output, made)

    def _send(self) -> None:
        number = next(self._numbers)
        labels = {"tenant": f"t{number % self._tenants}"}
        sampling = SamplingParams(max_tokens=OUTPUT, ignore_eos=True, extra_args=labels)
        self.scheduler.add_request(Request(f"r{number}", [1] * 64, sampling, None))


def main() -> None:
    """Measure both in turn."""
    model, tenants = sys.argv[1], int(sys.argv[2])
    os.environ.setdefault("FAIRSHARE_SCHEDULER", '{"policy": "vtc"}')
    benches = {"vllm": Bench(AsyncScheduler, model, tenants)}
    benches["fairshare"] = Bench(FairScheduler, model, tenants)
    rounds: dict[str, list[float]] = {name: [] for name in benches}
    for number in range(ROUNDS + 1):
        for name, bench in benches.items():
            spent_us = bench.round_us()
            if number:  # the first one warms up
                rounds[name].append(spent_us)
    print(json.dumps({name: statistics.median(each) for name, each in rounds.items()}))


if __name__ == "__main__":
    main()
