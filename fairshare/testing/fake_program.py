"""The fake server as a program that a launcher can start in an engine's place."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import NoReturn

from fairshare.testing.behaviour import Behaviour, Kind
from fairshare.testing.fake_server import FakeServer

_TRACEBACK = """\
INFO starting the fake engine
Traceback (most recent call last):
  File "engine.py", line 1, in <module>
    load_weights()
RuntimeError: the fake engine was told to die at its start
"""
# Outlives its parent and does not go when asked, as an orphaned engine process.
_STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then exit 0; a death that was asked for exits 1."""
    options = _parser().parse_args(argv)
    behaviour = _behaviour(options)
    if behaviour.kind is Kind.DIE_AT_START:
        sys.stderr.write(_TRACEBACK)
        sys.exit(1)
    if behaviour.kind is Kind.LEAK_CHILD:
        subprocess.Popen(
            [sys.executable, "-c", _STUBBORN],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        asyncio.run(_serve(options, behaviour))
    except OSError as error:
        sys.stderr.write(f"OSError: {error}\n")
        sys.exit(1)


async def _serve(options: argparse.Namespace, behaviour: Behaviour) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = FakeServer(
        behaviour,
        host=options.host,
        port=options.port,
        model=options.served_model_name or options.model,
        api_key=os.environ.get("VLLM_API_KEY"),
        on_death=_die,
    )
    async with server:
        sys.stderr.write(f"INFO the fake engine listens on {server.base_url}\n")
        sys.stderr.flush()
        await stop.wait()


def _die() -> NoReturn:
    sys.stderr.write("RuntimeError: the fake engine was told to die\n")
    sys.stderr.flush()
    os._exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fake_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="fake")
    parser.add_argument("--served-model-name")
    parser.add_argument("--behaviour", type=Kind, default=Kind.OK, metavar="KIND")
    parser.add_argument("--after", type=int, default=0, help="good answers before the failure")
    parser.add_argument("--ttft-ms", type=float, default=5.0)
    parser.add_argument("--itl-ms", type=float, default=1.0)
    parser.add_argument("--tokens-per-chunk", type=int, default=1)
    parser.add_argument("--empty-chunks", type=int, default=0)
    parser.add_argument("--cached-tokens", type=int, default=0)
    parser.add_argument("--silent-text", action="store_true")
    parser.add_argument("--max-running", type=int)
    parser.add_argument("--ready-after-s", type=float, default=0.0)
    return parser


def _behaviour(options: argparse.Namespace) -> Behaviour:
    return Behaviour(
        kind=options.behaviour,
        after=options.after,
        ttft_s=options.ttft_ms / 1000,
        itl_s=options.itl_ms / 1000,
        tokens_per_chunk=options.tokens_per_chunk,
        empty_chunks=options.empty_chunks,
        cached_tokens=options.cached_tokens,
        silent_text=options.silent_text,
        max_running=options.max_running,
        ready_after_s=options.ready_after_s,
    )


if __name__ == "__main__":
    main()
