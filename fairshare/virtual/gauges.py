"""The server's ``/metrics`` under vLLM's names, plus how late the simulation runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fairshare.virtual.engine import Engine
from fairshare.virtual.prefixes import BLOCK_TOKENS
from fairshare.virtual.realtime import Dilation
from fairshare.virtual.requests import Served


@dataclass(slots=True)
class Counters:
    """What has been served so far."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generation_tokens: int = 0
    finished: Counter[str] = field(default_factory=Counter)


def exposition(
    served: Served, engine: Engine, counters: Counters, dilation: Dilation, arriving: int
) -> str:
    """The Prometheus text; ``arriving`` requests are in the front end, shown as waiting."""
    shown = served.model_name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    labels = f'engine="0",model_name="{shown}"'
    lines: list[str] = []

    def metric(kind: str, name: str, value: float, extra: str = "") -> None:
        header = f"# TYPE {name} {kind}"
        if header not in lines:
            lines.append(header)
        lines.append(f"{name}{{{labels}{extra}}} {float(value)}")

    metric("gauge", "vllm:num_requests_running", len(engine.running))
    metric("gauge", "vllm:num_requests_waiting", engine.waiting + arriving)
    metric("gauge", "vllm:kv_cache_usage_perc", engine.kv_usage)
    metric("counter", "vllm:num_preemptions_total", engine.preemptions)
    metric("counter", "vllm:prompt_tokens_total", counters.prompt_tokens)
    metric("counter", "vllm:generation_tokens_total", counters.generation_tokens)
    metric("counter", "vllm:prompt_tokens_cached_total", counters.cached_tokens)
    for reason in ("stop", "length"):
        metric(
            "counter",
            "vllm:request_success_total",
            counters.finished[reason],
            f',finished_reason="{reason}"',
        )
    blocks = engine.limits.kv_blocks
    metric(
        "gauge",
        "vllm:cache_config_info",
        1,
        f',block_size="{BLOCK_TOKENS}",num_gpu_blocks="{blocks}"'
        f',kv_cache_size_tokens="{blocks * BLOCK_TOKENS}"'
        f',kv_cache_memory_bytes="{blocks * BLOCK_TOKENS * served.kv_bytes_per_token}"'
        f',enable_prefix_caching="{served.prefix_caching}"',
    )
    metric("gauge", "fairshare_virtual_dilation", dilation.now_s)
    metric("gauge", "fairshare_virtual_dilation_worst", dilation.worst_s)
    for name, seconds in (
        ("time_lost", dilation.lost_s),
        ("ttft", dilation.ttft_s),
        ("ttft_simulated", dilation.ttft_simulated_s),
        ("e2e", dilation.e2e_s),
        ("e2e_simulated", dilation.e2e_simulated_s),
    ):
        metric("counter", f"fairshare_virtual_{name}_seconds_total", seconds)
    return "\n".join(lines) + "\n"
