"""One simulated engine behind HTTP, in real time: ``python -m fairshare.virtual.server``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from fairshare.errors import FairshareError
from fairshare.virtual.board import Board, Entry, own_entry
from fairshare.virtual.engine import Engine, Limits
from fairshare.virtual.failing import fails
from fairshare.virtual.fates import doom_of_knobs, fail_to_start, slowed
from fairshare.virtual.http import Frontend
from fairshare.virtual.memory import MemoryPlan, StartError, plan_memory
from fairshare.virtual.models import VirtualModel, virtual_model
from fairshare.virtual.options import parser
from fairshare.virtual.physics import Costs
from fairshare.virtual.realtime import RealTimeEngine
from fairshare.virtual.requests import Served
from fairshare.virtual.scheduling import policy_of
from fairshare.virtual.share import NoDeviceError, ProcessShare, find_share

_CLAIM_TRIES = 3
_BROKEN_S = 0.5  # so long vLLM's front end survives its engine while requests fail


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a server holds of the simulated GPU."""

    model: VirtualModel
    share: ProcessShare
    max_model_len: int
    board: Board | None
    entry: Entry
    memory: MemoryPlan


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit status.

    0 after a signal, 1 if the engine cannot start (with an error line as vLLM writes it), 2 for
    a wrong command line.
    """
    options = parser().parse_args(argv)
    try:
        with _claimed(options) as claim:
            return asyncio.run(_serve(options, claim))
    except NoDeviceError as error:
        _log("ERROR", f"RuntimeError: {error}")
    except FairshareError as error:
        _log("ERROR", f"ValueError: {error.message}" + (f" ({error.hint})" if error.hint else ""))
    except ValueError as error:
        _log("ERROR", f"ValueError: {error}")
    except OSError as error:
        _log("ERROR", f"OSError: {error}")
    except StartError as error:
        _log("ERROR", str(error))
    return 1


async def _serve(options: argparse.Namespace, claim: _Claim) -> int:
    model, share = claim.model, claim.share
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if fails("server_never_ready"):
        _log("INFO", "never serving, as FAIRSHARE_VIRTUAL_FAIL says")
        await stop.wait()
        return 0
    name = options.served_model_name or model.name
    frontend = Frontend(
        Served(
            name,
            model.vocab_size,
            claim.max_model_len,
            model.eos_token_ids,
            root=model.name,
            kv_bytes_per_token=model.kv_bytes_per_token,
            prefix_caching=options.enable_prefix_caching,
        ),
        front_end_s=options.front_end_s,
        api_key=os.environ.get("VLLM_API_KEY"),
        doom=doom_of_knobs(),
    )
    limits = Limits(options.max_num_seqs, options.max_num_batched_tokens, claim.memory.kv_blocks)
    realtime = RealTimeEngine(
        Engine(limits, policy_of(options.scheduling_policy, os.environ)),
        Costs.of(share.gpu, model, eager=options.enforce_eager),
        slowed(share.rule()),
        share.partition,
        claim.entry,
        claim.board,
        frontend.deliver,
    )
    frontend.attach(realtime)
    runner = web.AppRunner(
        frontend.application(),
        access_log=None,
        handler_cancellation=True,  # a client that disconnects ends its request
        keepalive_timeout=5.0,  # uvicorn's, hence vLLM's
        shutdown_timeout=0.1,
    )
    await runner.setup()
    stepping = asyncio.create_task(realtime.run(), name="engine")
    try:
        await web.TCPSite(runner, options.host, options.port).start()
        _log("INFO", f"serving {name} on http://{options.host}:{options.port} ({share.label})")
        waiting = asyncio.create_task(stop.wait())
        broken = asyncio.create_task(frontend.broken.wait())
        await asyncio.wait({waiting, broken, stepping}, return_when=asyncio.FIRST_COMPLETED)
        if stepping.done():
            stepping.result()  # the engine never ends by itself: raises what broke it
        if broken.done():
            _log("ERROR", frontend.cause)
            await asyncio.sleep(_BROKEN_S)
    finally:
        stepping.cancel()
        await runner.cleanup()
    _log("INFO", "shutting down")
    return 0


@contextmanager
def _claimed(options: argparse.Namespace) -> Iterator[_Claim]:
    """Claim memory and a place on the board, and tell in ``servers/<pid>.json``."""
    fail_to_start()
    model = virtual_model(options.model)
    max_model_len = _max_model_len(options, model)
    share = find_share(os.environ, options.gpu)
    board = None if share.state_dir is None else Board(share.state_dir / "board")
    try:
        memory, entry = _claim_memory(options, model, share, max_model_len, board)
        report = {
            "pid": entry.pid,
            "start_ticks": entry.start_ticks,
            "model": model.name,
            "used_bytes": memory.claimed_bytes,
            **share.report(),
        }
        with _reported(share, report):
            yield _Claim(model, share, max_model_len, board, entry, memory)
    finally:
        if board is not None:
            board.close()
        if share.connection is not None:
            share.connection.close()


def _claim_memory(
    options: argparse.Namespace,
    model: VirtualModel,
    share: ProcessShare,
    max_model_len: int,
    board: Board | None,
) -> tuple[MemoryPlan, Entry]:
    total = share.memory_total
    cap = total if share.memory_cap is None else min(share.memory_cap, total)
    for _ in range(_CLAIM_TRIES):
        used = 0 if board is None else board.memory_used(share.partition_id)
        memory = plan_memory(
            model,
            total_bytes=total,
            free_bytes=max(0, min(cap, total - used)),
            max_model_len=max_model_len,
            utilization=options.gpu_memory_utilization,
            kv_bytes=options.kv_cache_memory_bytes,
        )
        entry = own_entry(share.partition_id, share.kind, share.sm_share, memory.claimed_bytes)
        if board is None or board.join(entry, limit_bytes=total):
            return memory, entry
    raise StartError("torch.OutOfMemoryError: CUDA out of memory (others took it first)")


@contextmanager
def _reported(share: ProcessShare, report: dict[str, Any]) -> Iterator[None]:
    if share.state_dir is None:
        yield
        return
    path: Path = share.state_dir / "servers" / f"{report['pid']}.json"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(json.dumps(report), encoding="utf-8")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _max_model_len(options: argparse.Namespace, model: VirtualModel) -> int:
    asked: int | None = options.max_model_len
    if asked is not None and asked > model.max_model_len:
        raise StartError(
            f"ValueError: User-specified max_model_len ({asked}) is greater than the derived "
            f"max_model_len ({model.max_model_len})"
        )
    return asked or model.max_model_len


def _log(level: str, text: str) -> None:
    stamp = datetime.now().strftime("%m-%d %H:%M:%S")
    sys.stderr.write(f"{level} {stamp} [virtual] {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
