"""How far a sweep has come, as its events tell it."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from fairshare.ui.board import board
from fairshare.ui.course import Course

TENANT = {
    "done": 40,
    "errors": 1,
    "in_flight": 4,
    "requests_per_s": 12.5,
    "output_tokens_per_s": 800.0,
    "ttft_p50_s": 0.05,
    "ttft_p99_s": 1.25,
}
EVENTS: list[dict[str, Any]] = [
    {"t": 100.0, "event": "sweep.started", "cells": 3},
    {"t": 100.0, "event": "sweep.left", "cells": 3, "left_s": 60.0},
    {"t": 101.0, "event": "deployment.started", "deployment": "mps-1", "cells": ["a", "b"]},
    {"t": 103.0, "event": "cell.started", "cell": "a"},
    {"t": 110.0, "event": "cell.finished", "cell": "a", "status": "failed"},
    {"t": 110.0, "event": "sweep.left", "cells": 2, "left_s": 40.0},
    {"t": 110.0, "event": "cell.started", "cell": "b"},
    {"t": 111.0, "event": "cell.phase", "cell": "b", "phase": "measure"},
    {
        "t": 113.0,
        "event": "cell.progress",
        "cell": "b",
        "tenants": {"chat": TENANT},
        "gpu": {"gpu_utilisation": 0.63, "memory_used_bytes": 8 << 30, "power_w": 251.4},
        "cpu_percent": 180.0,
    },
]


def course_of(events: list[dict[str, Any]]) -> Course:
    """Where these events lead."""
    course = Course()
    for event in events:
        course.take(event)
    return course


def test_one_line_says_everything() -> None:
    """Cells, time left, the phase, each tenant's rate and tail, GPU and CPU, on one plain line."""
    said = course_of(EVENTS).summary(115.0)
    assert said == (
        "1 of 3 cells done, 1 failed, about 35 s left; b measure, for 4 s; "
        "chat: 12.5 req/s, 800 tok/s, TTFT P50 50 ms P99 1.25 s, 4 in flight, 1 error; "
        "GPU 63 %, 8 GiB GPU memory, 251 W, CPU 180 % of one core"
    )


def test_what_is_not_known_is_not_shown_as_nothing() -> None:
    """A time that is up with cells still to come, and a GPU without a power meter."""
    gpu = {"t": 114.0, "event": "cell.progress", "gpu": {"gpu_utilisation": 0.5, "power_w": None}}
    said = course_of([*EVENTS, gpu]).summary(190.0)
    assert "longer than was estimated; b measure" in said
    assert "GPU 50 %, power not told" in said
    over = [{"t": 115.0, "event": "cell.finished", "cell": name, "status": "ok"} for name in "bc"]
    assert "estimated" not in course_of([*EVENTS, *over]).summary(190.0)


def test_the_table_holds_the_same() -> None:
    """Nothing that the line has is missing from the table."""
    console = Console(width=120, record=True, quiet=False, file=None)
    with console.capture() as captured:
        console.print(board(course_of(EVENTS), 115.0))
    shown = captured.get()
    assert shown.splitlines()[1].startswith("[2/3] 1 of 3 cells done")
    for text in ("[2/3] ", "about 35 s left", "chat", "12.5 req/s", "1.25 s", "251 W", "180 %"):
        assert text in shown


def test_a_resumed_sweep_begins_anew() -> None:
    """The same file holds several calls; what is shown is of the last one."""
    course = course_of([*EVENTS, {"t": 200.0, "event": "sweep.started", "cells": 2}])
    assert course.summary(200.0) == "0 of 2 cells done; preparing, for 0 ms"


def test_values_of_other_types_are_passed_over() -> None:
    """A log that somebody has edited is no traceback, and nothing of it steers the terminal."""
    odd = [
        {"t": "now", "event": "sweep.started", "cells": 2},
        {"t": 1.0, "event": "cell.started", "cell": "\x1b[2Jx\ny"},
        {"t": float("nan"), "event": "sweep.left", "left_s": True},
        {"t": 2.0, "event": "cell.progress", "tenants": {"\x1b": {"done": "many"}}, "gpu": [1]},
        {"event": "cell.finished"},
        {"event": "cell.phase", "phase": None},
    ]
    said = course_of(odd[:4]).summary(3.0) + course_of(odd).summary(3.0)
    assert "\x1b" not in said
    assert "\n" not in said
