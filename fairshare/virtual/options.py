"""The virtual server's command line: vLLM's names where the meaning is the same."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fairshare.virtual.memory import DEFAULT_UTILIZATION
from fairshare.virtual.physics import PUBLISHED

MODULE = "fairshare.virtual.server"  # what a command line runs to start one


def parser() -> argparse.ArgumentParser:
    """The options of one simulated server."""
    made = argparse.ArgumentParser(
        prog="fairshare serve-virtual",
        description="One OpenAI-compatible server on a simulated GPU. The API key, if any, is "
        "read from VLLM_API_KEY. How the GPU is shared is read from the environment, as a real "
        "driver would (docs/virtual-gpu.md).",
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--model", required=True, help="a model of the virtual GPU: qwen3-4b, llama-3-8b, ...")
    add("--gpu", default="a100-40", help="the whole GPU, where no simulated driver is installed")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8000)
    add("--served-model-name", help="name in requests; without it, the model's")
    add("--max-model-len", type=_positive, help="longest prompt plus answer, in tokens")
    add("--max-num-seqs", type=_positive, default=256)
    add("--max-num-batched-tokens", type=_positive, default=2048)
    add(
        "--scheduling-policy",
        choices=("fcfs", "priority"),
        default="fcfs",
        help="whether requests' priorities decide; FAIRSHARE_SCHEDULER in the environment asks for "
        "a policy of fairshare's (docs/schedulers.md)",
    )
    add("--kv-cache-memory-bytes", type=_positive, help="KV cache, in place of a utilization")
    add(
        "--gpu-memory-utilization",
        type=_fraction,
        help=f"part of the visible memory to use (default {DEFAULT_UTILIZATION})",
    )
    add(
        "--enable-prefix-caching",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep blocks of prompts for those that begin in the same way",
    )
    add("--enforce-eager", action="store_true", help="no CUDA graphs: the host sets the pace")
    add(
        "--front-end-s",
        type=float,
        default=PUBLISHED.front_end_s,
        help="seconds between a request's receipt and its arrival at the engine",
    )
    return made


def options_in(argv: Sequence[str]) -> argparse.Namespace | None:
    """The options in a server's whole command line; None if it starts another program."""
    if MODULE not in argv:
        return None
    return parser().parse_args(argv[argv.index(MODULE) + 1 :])


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} does not lie in (0, 1]")
    return value
