"""How long a large result folder takes to analyse, plot and report, and how much memory.

``python -m benchmarks.analysis`` makes synthetic folders (marked as such, and never below a folder
called ``results``), runs ``fairshare report`` on each in a process of its own, and prints seconds
and the peak memory of all its processes. The largest has 1,000 cells of 1,000 requests of 64
chunks.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil

from fairshare.errors import FairshareError
from fairshare.records import (
    CellKey,
    CellResult,
    CellStatus,
    Mark,
    Mode,
    Provenance,
    Scheduling,
)
from fairshare.results import ResultStore, layout

S = 1_000_000_000
WINDOW_S = 60.0
NOTE = "synthetic: made by benchmarks/analysis.py from random numbers"
MODES = {Mode.LOGICAL: 1.4, Mode.TIMESLICE: 2.1, Mode.MPS: 1.6, Mode.MIG: 1.9}
RIVALS = [*((mode, None) for mode in MODES), (Mode.LOGICAL, Scheduling.GATEWAY)]
LEVELS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
TENANTS = ("chat", "batch")
REPETITIONS = 10


def keys(scenarios: int) -> Iterator[CellKey]:
    """Cells of so many scenarios, each with all modes, levels and repetitions; then of more."""
    for first in itertools.count(1, scenarios):
        for repetition, level, (mode, place), number in itertools.product(
            range(1, REPETITIONS + 1), LEVELS, RIVALS, range(first, first + scenarios)
        ):
            policy = "fcfs" if place is None else "vtc"
            name = f"synthetic-{number}"
            yield CellKey(name, mode, level, repetition, policy=policy, scheduling=place)


def make_folder(
    directory: Path, cells: int, requests: int, chunks: int, scenarios: int = 2
) -> None:
    """A result folder of random requests.

    Raises:
        FairshareError: it would lie among real results.
    """
    if "results" in directory.resolve().parts:
        raise FairshareError(f"{directory} lies below results/, where nothing synthetic belongs")
    store = ResultStore.create(directory, {"name": "synthetic", "provenance": {"note": NOTE}})
    for key in itertools.islice(keys(scenarios), cells):
        make_cell(store, key, requests, chunks)


def make_cell(store: ResultStore, key: CellKey, requests: int, chunks: int) -> None:
    """One cell: as many requests of each tenant, gamma-distributed gaps, a few failures."""
    random = np.random.default_rng([key.repetition, key.concurrency or 0, len(key.scenario)])
    cell_id = key.cell_id({"synthetic": True})
    cell = store.begin_cell(cell_id)
    shape = (requests // len(TENANTS), chunks)
    lines = [
        line
        for number, tenant in enumerate(TENANTS)
        for line in _lines(f"{number}", tenant, MODES[key.mode], shape, random)
    ]
    (cell.dir / layout.REQUESTS).write_bytes(b"".join(lines))
    gpu = "".join(f"{t},0.9,0.5,{8 << 30},300,60,1980,2600\n" for t in range(int(WINDOW_S) + 3))
    (cell.dir / layout.GPU).write_text(
        "t_s,gpu_utilisation,memory_utilisation,memory_used_bytes,power_w,temperature_c,"
        f"sm_clock_mhz,memory_clock_mhz\n{gpu}"
    )
    cell.write_config({"key": {"scenario": key.scenario}, "note": NOTE})
    slo = {"ttft_s": 1.0, "e2e_s": 10.0}
    cell.finish(
        CellResult(
            id=cell_id,
            key=key,
            status=CellStatus.OK,
            label=key.mode.value,
            provenance=Provenance.SIMULATED,
            marks=[Mark.UNVALIDATED],
            notes=[NOTE],
            window_ns=(S, int((1 + WINDOW_S) * S)),
            end_ns=int((3 + WINDOW_S) * S),
            tenants=[{"name": n, "weight": 1.0, "open_loop": True, "slo": slo} for n in TENANTS],
        )
    )


def _lines(
    prefix: str, tenant: str, slow: float, shape: tuple[int, int], random: np.random.Generator
) -> Iterator[bytes]:
    """Lines of ``requests.jsonl`` in the order of their ends; ``shape`` is requests and chunks."""
    count, chunks = shape
    intended = np.sort(random.uniform(0, 1 + WINDOW_S, count))
    ttft = 0.05 * slow * random.gamma(2.0, 1.0, count)
    gaps = 0.01 * slow * random.gamma(4.0, 0.25, (count, chunks - 1))
    arrivals = (intended + ttft)[:, None] + np.concatenate(
        (np.zeros((count, 1)), np.cumsum(gaps, axis=1)), axis=1
    )
    failed = random.random(count) < 0.005
    chunk_ns = (arrivals * S).astype(np.int64)
    for i in np.argsort(chunk_ns[:, -1], kind="stable"):
        begun = int(intended[i] * S)
        record: dict[str, Any] = {
            "id": f"{prefix}-{i}", "tenant": tenant, "server": "s0",
            "phase": "warmup" if begun < S else "measure", "intended_ns": begun,
            "sent_ns": begun + 50_000, "headers_ns": begun + 900_000,
            "first_token_ns": int(chunk_ns[i, 0]), "chunk_ns": chunk_ns[i].tolist(),
            "chunk_tokens": [1] * chunks, "end_ns": int(chunk_ns[i, -1]) + 90_000,
            "prompt_tokens": 128, "cached_tokens": 0, "output_tokens": chunks,
            "finish_reason": None if failed[i] else "length", "status": 200,
            "error": "disconnect" if failed[i] else None,
            "error_text": "made up" if failed[i] else None, "round": None, "app": None,
            "interaction": None, "call": None, "calls": None, "empty_chunks": 0,
            "retry_after_s": None,
        }  # fmt: skip
        yield orjson.dumps(record) + b"\n"


@dataclass(frozen=True)
class Measured:
    """What one ``fairshare report`` needed."""

    seconds: float
    cpu_s: float
    peak_bytes: int


def measure(directory: Path, command: str) -> Measured:
    """Run the command on a folder; peak memory is that of the whole tree of processes.

    So is the processor's time, as far as it was seen: the last tenth of a second of each is not.
    """
    begun = time.monotonic()
    program = [sys.executable, "-m", "fairshare", command, str(directory)]
    child = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    spent_s: dict[psutil.Process, float] = {}
    while child.poll() is None:
        tree = _tree(child.pid)
        peak = max(peak, _memory_bytes(tree))
        for process in tree:
            with suppress(psutil.Error):
                times = process.cpu_times()
                spent_s[process] = times.user + times.system
        time.sleep(0.1)
    if child.returncode:
        complaint = child.stderr.read().decode() if child.stderr else ""
        raise FairshareError(f"fairshare {command} failed: {complaint[-500:]}")
    return Measured(time.monotonic() - begun, sum(spent_s.values()), peak)


def _tree(pid: int) -> list[psutil.Process]:
    """A process and its descendants."""
    try:
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def _memory_bytes(tree: list[psutil.Process]) -> int:
    """Proportional set size: shared pages are counted once."""
    total = 0
    for process in tree:
        try:
            total += process.memory_full_info().pss
        except (psutil.Error, OSError):
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[125, 250, 500, 1000])
    parser.add_argument("--requests", type=int, default=1000, help="in each cell")
    parser.add_argument("--chunks", type=int, default=64, help="in each request")
    parser.add_argument("--scenarios", type=int, default=2, help="each has figures of its own")
    parser.add_argument("--command", default="report", choices=("analyze", "plot", "report"))
    parser.add_argument("--folder", type=Path, help="where to make them (default: a temporary one)")
    parser.add_argument("--keep", action="store_true", help="and use those that are there already")
    asked = parser.parse_args()
    base = asked.folder or Path(tempfile.mkdtemp(prefix="fairshare-analysis-"))
    print(
        f"{os.cpu_count()} cores; {asked.requests} requests of {asked.chunks} chunks in each cell"
    )
    print("| cells | requests | seconds | CPU seconds | ms per cell | peak memory |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    try:
        for cells in asked.cells:
            directory = base / f"cells-{cells}"
            if not (asked.keep and directory.exists()):
                make_folder(directory, cells, asked.requests, asked.chunks, asked.scenarios)
            found = measure(directory, asked.command)
            print(
                f"| {cells:,} | {cells * asked.requests:,} | {found.seconds:.1f} | "
                f"{found.cpu_s:.1f} | {1e3 * found.seconds / cells:.0f} | "
                f"{found.peak_bytes / 1e9:.2f} GB |",
                flush=True,
            )
    finally:
        if not asked.keep:
            shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
