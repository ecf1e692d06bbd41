"""The measured table of all modes on one GPU, in calls of a few minutes; see docs/which-mode.md.

Usage: ``make gpu-reference MODEL=PATH`` again and again until it says that it is complete, or
``python -m benchmarks.gpu_reference --device cuda --model PATH [--max-hours 0.13] [FLAGS]``, where
other FLAGS are handed on to ``fairshare matrix``.

Each call resumes from the result folder, on this machine or another with the same GPU, model and
versions. Modes are tried first: where the MPS daemon does not start, or takes no client, its cells
are infeasible with the reason. A complete scenario is packed to be kept: its records compressed,
its logs removed, and what the simulated GPU predicts stands beside it. What no GPU has measured
goes where git does not look.
"""

from __future__ import annotations

import argparse
import gzip
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fairshare.devices.inventory import detect
from fairshare.errors import ExitCode, FairshareError
from fairshare.spec.launcher import DeviceKind

SCENARIOS = ("noisy-neighbor", "two-tenants")
COMMAND = (sys.executable, "-m", "fairshare")
RESULTS = Path("results")
SECONDS_PER_HOUR = 3600
PACKED = ("requests.jsonl", "scheduling.jsonl")
NOT_KEPT = ("*.log", "server_metrics.jsonl", "events.jsonl", "report.html", "*.svg")


def main() -> int:
    """Go on with the first scenario that is not complete, as far as the time allows."""
    given, flags = _arguments()
    if given.device.partition(":")[0] == DeviceKind.CUDA and not given.model:
        print(
            "which model? make gpu-reference MODEL=PATH_OR_NAME, of 0.5 to 8 billion parameters "
            "(random weights will do: speed does not depend on them)",
            file=sys.stderr,
        )
        return ExitCode.BAD_INPUT
    try:
        device, _ = detect(given.device)
    except FairshareError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    name = re.sub(r"[^a-z0-9]+", "-", device.name.lower()).strip("-")
    measured = device.kind is DeviceKind.CUDA
    folder = given.output_dir or RESULTS / ("reference" if measured else "rehearsal") / name
    if given.launcher:  # another engine's cells are never ranked beside these
        folder /= Path(given.launcher).stem
        flags += ["--launcher", given.launcher]
    model = ["--model", given.model] if given.model else []
    flags += ["--device", given.device, *model]
    return run(flags, folder, given.max_hours, given.simulated_model)


def run(flags: Sequence[str], folder: Path, max_hours: float, simulated_model: str = "") -> int:
    """Measure what ``folder`` still lacks; the worst exit code of ``fairshare matrix``.

    ``simulated_model``: the one that predictions are made with, where the model's name is none.
    """
    end_s = time.monotonic() + max_hours * SECONDS_PER_HOUR
    worst = int(ExitCode.OK)
    for scenario in SCENARIOS:
        part = folder / scenario
        if is_packed(part):
            print(f"{part}: complete")
            continue
        code = _measure(scenario, part, [*flags, "--resume"], end_s)
        if code == ExitCode.SOME_CELLS_FAILED:  # what failed is tried again once all was tried
            code = _measure(scenario, part, [*flags, "--retry-failed"], end_s)
        if code == ExitCode.STOPPED_EARLY:
            print(f"\n{part}: not complete yet; run the same command again")
        if code not in (ExitCode.OK, ExitCode.SOME_CELLS_FAILED):
            return code
        if reported := _report(part, simulated_model):
            return reported
        if code == ExitCode.SOME_CELLS_FAILED:
            worst = code
            print(f"{part}: some cells failed; the same command tries them again")
            continue
        pack(part)
        print(f"{part}: complete, and packed to be kept")
    return worst


def _report(part: Path, simulated_model: str) -> int:
    """Make tables, figures and, where the model is known, predictions; an exit code."""
    for form in ("html", "markdown"):
        command = [*COMMAND, "report", "--format", form, str(part)]
        if code := subprocess.run(command, check=False).returncode:
            return code
    predict = [sys.executable, "-m", "benchmarks.gpu_predicted", str(part)]
    if subprocess.run([*predict, "--model", simulated_model], check=False).returncode:
        print(f"nothing was predicted; again with {' '.join(predict[1:])} --model NAME")
    return ExitCode.OK


def is_packed(part: Path) -> bool:
    """Whether a scenario was run to its end and packed."""
    cells = part / "cells"
    return any(cells.glob("*/*.gz")) and not any(cells.glob("*/requests.jsonl"))


def pack(part: Path) -> None:
    """Compress the records and remove what is neither a record, a figure nor provenance."""
    for leftover in (*part.glob("cells/*.partial"), *part.glob("superseded")):
        shutil.rmtree(leftover)
    for pattern in NOT_KEPT:
        for path in part.rglob(pattern):
            path.unlink()
    for name in PACKED:
        for path in part.glob(f"cells/*/{name}"):
            packed = path.with_name(path.name + ".gz")
            # Without the time in it, equal records are equal bytes.
            packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
            path.unlink()


def _measure(scenario: str, part: Path, flags: Sequence[str], end_s: float) -> int:
    left_hours = max(1.0, end_s - time.monotonic()) / SECONDS_PER_HOUR
    command = [
        *(*COMMAND, "matrix", scenario, "--matrix", "gpu-reference"),
        *("--skip-unready-modes", "--no-report", "--output-dir", str(part)),
        *("--max-hours", f"{left_hours:.4f}", *flags),
    ]
    return subprocess.run(command, check=False).returncode


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda", help="cuda; virtual or cpu to rehearse")
    parser.add_argument("--model", default="", help="needed on cuda")
    parser.add_argument("--launcher", default="", help="another engine, in a folder of its own")
    parser.add_argument("--max-hours", type=float, default=0.13, help="of one call")
    parser.add_argument("--output-dir", type=Path, help="default: results/reference/GPU")
    parser.add_argument(
        "--simulated-model", default="", help="whose shape the model has (fairshare list model)"
    )
    return parser.parse_known_args()


if __name__ == "__main__":
    sys.exit(main())
