"""A long sweep of very short cells, and what the process that runs it holds on the way.

    python -m tests.soak CELLS FOLDER [--resume]

Prints one JSON object per hundredth of the sweep, or per cell if there are fewer: cells that are
over, resident memory (MiB), open descriptors, threads, children, and what lies in the folders of
temporary files, locks and journals. Servers serve twenty cells and are then started anew.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from fairshare import assets
from fairshare.records import CellStatus
from fairshare.runner.plan import make_plan
from fairshare.runner.rerun import request_of
from fairshare.runner.session import execute
from fairshare.runner.settings import Flags, settle
from fairshare.spec.matrix import Matrix

SCENARIO = """\
name: moment
timing: {warmup_s: 0, window_s: 0.05, drain_s: 5}
tenants:
  - name: chat
    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 16}}
    output: {kind: fixed, tokens: 2}
  - name: feed
    arrival: {kind: constant, rate_per_s: 80}
    prompts: {kind: synthetic, tokens: {kind: fixed, tokens: 16}}
    output: {kind: fixed, tokens: 2}
"""
PER_SERVER = 20  # cells that a server serves before it is started anew
MODES = ("logical", "timeslice", "mps", "mig")


class Watch:
    """Listens to a sweep and weighs its process at every so many cells."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._process = psutil.Process()
        self._over = 0

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Count cells."""
        if event["event"] == "cell.finished":
            self._over += 1
            if self._over % self._every == 0 or self._over == 1:
                print(json.dumps(self.weigh()), flush=True)

    def weigh(self) -> dict[str, int | float]:
        """What the process holds now."""
        gc.collect()
        places = {
            "temporary": Path(tempfile.gettempdir()),
            "locks": Path(os.environ["FAIRSHARE_LOCK_DIR"]),
            "journals": assets.state_path() / "runs",
        }
        held = {name: len(list(at.iterdir())) if at.is_dir() else 0 for name, at in places.items()}
        with self._process.oneshot():
            return {
                "cells": self._over,
                "rss_mib": round(self._process.memory_info().rss / 2**20, 2),
                "descriptors": self._process.num_fds(),
                "threads": self._process.num_threads(),
                "children": len(self._process.children(recursive=True)),
                **held,
            }


def main(cells: int, folder: Path, *, resume: bool) -> int:
    """Run the sweep; 0 if every cell of this call is ok."""
    scenario = folder.with_name("moment.yaml")
    scenario.write_text(SCENARIO)
    rounds, odd = divmod(cells, PER_SERVER * len(MODES))
    assert not odd, f"{cells} cells are no whole number of rounds"
    matrix = Matrix(
        name="soak",
        scenarios=[str(scenario)],
        modes=list(MODES),
        concurrency=list(range(1, PER_SERVER + 1)),
        num_runs=rounds,
    )
    flags = Flags(device="virtual:h200")
    settings = settle(matrix, flags)
    watch = Watch(max(1, cells // 100))
    outcome = execute(
        settings,
        make_plan(settings),
        folder,
        resume=resume,
        request=request_of(matrix, flags),
        listeners=[watch],
    )
    print(json.dumps({**watch.weigh(), "over": True}), flush=True)
    return 0 if outcome.count(CellStatus.OK) == len(outcome.results) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), resume="--resume" in sys.argv[3:]))
