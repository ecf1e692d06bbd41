"""A long sweep holds no more at its end than at its beginning."""

from __future__ import annotations

import subprocess
import sys
from statistics import median

import orjson
import pytest

from tests.workplace import ROOT, Workplace

FULL_TIMEOUT_S = 3 * 3600


def _weighed(workplace: Workplace, cells: int, timeout_s: float) -> list[dict[str, float]]:
    """What the process of a sweep of so many cells held on the way; the last line is after it."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", str(cells), str(workplace.path / "out")],
        cwd=ROOT,
        env=workplace.env,
        stdout=subprocess.PIPE,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return [orjson.loads(line) for line in done.stdout.splitlines()]


def _check(lines: list[dict[str, float]]) -> None:
    *during, after = lines
    # Each kind of deployment comes again every round: what it holds then is what it held before. A
    # file may just be open where it is looked at, so these are held against each other by medians.
    half = len(during) // 2
    for name in ("descriptors", "threads"):
        early, late = (
            median(line[name] for line in part) for part in (during[:half], during[half:])
        )
        assert late <= early, (name, early, late)
    for name in ("children", "temporary", "locks", "journals"):
        early, late = (max(line[name] for line in part) for part in (during[:half], during[half:]))
        assert late <= early, (name, early, late)
    for name in ("children", "temporary", "locks", "journals"):
        assert after[name] == 0, f"{name} are left behind"
    assert after["threads"] == 1


@pytest.mark.full
@pytest.mark.timeout(FULL_TIMEOUT_S)
def test_two_thousand_cells_take_no_more_memory_than_the_first_hundreds(
    workplace: Workplace,
) -> None:
    """Memory, descriptors, threads, temporary files and leases are flat; servers come and go."""
    lines = _weighed(workplace, 2000, FULL_TIMEOUT_S)
    assert lines[-1]["cells"] == 2000
    _check(lines)
    by_cells = {line["cells"]: line["rss_mib"] for line in lines[:-1]}
    # What a sweep keeps of a cell is about 1 KiB: its key, what became of it, and its place.
    assert by_cells[2000] - by_cells[200] < 0.05 * by_cells[200], by_cells
