"""What schedulers wrote down: counters over time, idling, and the bound that follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairshare.analysis.arrays import columns
from fairshare.analysis.bounds import service_bound
from fairshare.analysis.decisions import Decisions, read_decisions
from fairshare.errors import ResultsError
from fairshare.records import Phase, RequestRecord

S = 1_000_000_000
START = 77_000 * S  # a machine's clock, not the cell's


def write(path: Path, *lines: dict[str, Any]) -> Path:
    """A log of these lines; ``at`` is in seconds."""
    stamped = [{"time_ns": START + round(line.pop("at") * S), **line} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in stamped))
    return path


def read(path: Path) -> Decisions:
    """The log that is there."""
    found = read_decisions(path)
    assert found is not None
    return found


def test_counters_of_a_policy_in_the_engine(tmp_path: Path) -> None:
    """Each line that tells all counters is a point of every tenant's line."""
    log = write(
        tmp_path / "log",
        {"at": 0, "event": "opened", "policy": "vtc"},
        {"at": 1, "event": "admitted", "tenant": "a", "counters": {"a": 8, "b": 0.5}},
        {"at": 3, "event": "counters", "counters": {"a": 20, "b": 10}},
    )
    found = read(log)
    assert found.counters == {"a": ([1.0, 3.0], [8.0, 20.0]), "b": ([1.0, 3.0], [0.5, 10.0])}
    assert (found.idle_while_queued, found.window) == (None, None)


def test_a_gateway_that_idles_is_seen(tmp_path: Path) -> None:
    """Of 10 s, it has requests queued and room in its window from 2 to 5 s."""
    log = write(
        tmp_path / "log",
        {"at": 0, "event": "started", "window": 4, "window_tokens": None},
        {"at": 2, "tenant": "a", "counter": 3.0, "queued": 2, "running": 1, "window": 2},
        {"at": 5, "tenant": "b", "counter": 1.0, "queued": 1, "running": 2, "window": 2},
        {"at": 9, "tenant": "a", "counter": 5.0, "queued": 0, "running": 1, "window": 2},
        {"at": 10, "event": "stopped"},
    )
    found = read(log)
    assert found.idle_while_queued == pytest.approx(0.3)
    assert found.window == 2
    assert found.counters == {"a": ([2.0, 9.0], [3.0, 5.0]), "b": ([5.0], [1.0])}


def test_where_tokens_limit_what_runs_nothing_is_claimed(tmp_path: Path) -> None:
    """A window that also counts tokens may be full with few requests."""
    log = write(
        tmp_path / "log",
        {"at": 0, "event": "started", "window": 4, "window_tokens": 500},
        {"at": 2, "tenant": "a", "queued": 2, "running": 1, "window": 4},
        {"at": 3, "event": "stopped"},
    )
    assert read(log).idle_while_queued is None


def test_long_logs_are_thinned(tmp_path: Path) -> None:
    """A figure needs a few thousand points; the first and the last are among them."""
    lines = ({"at": i, "tenant": "a", "counter": i} for i in range(9001))
    times, values = read(write(tmp_path / "log", *lines)).counters["a"]
    assert len(times) < 4000
    assert (times[0], times[-1], values[-1]) == (0.0, 9000.0, 9000.0)


def test_what_was_cut_short_or_is_absent_is_passed_over(tmp_path: Path) -> None:
    """A killed writer leaves half a line; without a log there is nothing to show."""
    log = write(tmp_path / "log", {"at": 0, "tenant": "a", "counter": 1})
    with log.open("a") as file:
        file.write('{"time_ns": 1')
    assert read(log).counters == {"a": ([0.0], [1.0])}
    assert read_decisions(tmp_path / "absent") is None
    (tmp_path / "empty").touch()
    assert read_decisions(tmp_path / "empty") is None


@pytest.mark.parametrize("line", ["{", "[]", '{"time_ns": "now"}'])
def test_a_damaged_line_is_told_with_its_place(tmp_path: Path, line: str) -> None:
    """One message with file and line, never a traceback."""
    log = write(tmp_path / "log", {"at": 0})
    with log.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ResultsError, match=r"log:2: damaged"):
        read_decisions(log)


def _requests() -> Any:
    record = RequestRecord(
        "q", "a", "s", Phase.MEASURE, 0, 0, prompt_tokens=256, output_tokens=40, end_ns=S
    )
    return columns([record])


@pytest.mark.parametrize(
    ("shares", "window", "bound"),
    [
        ([{"kv_cache_tokens": 10_000}], None, 40_000.0),  # as in the paper's evaluation
        ([{"engine": {"kv_cache_tokens": 100}}], None, 512.0),  # the longest prompt is more
        ([{"kv_cache_tokens": 10_000}], 8.0, 2 * (256.0 + 2 * 8 * 40.0)),  # a gateway lets less in
        ([{"slot": "s0"}], None, None),
        ([{"kv_cache_tokens": 9}, {"kv_cache_tokens": 9}], None, None),  # two servers
        ([], None, None),
    ],
)
def test_the_bound_of_vtc(shares: list[Any], window: float | None, bound: float | None) -> None:
    """Twice the larger of prompt and tokens in memory, or the sum behind a window; else unknown."""
    decisions = None if window is None else Decisions({}, None, window)
    assert service_bound(_requests(), shares, decisions) == bound
