"""Azure traces are read exactly, and what is wrong with one is told with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairshare.errors import SpecError
from fairshare.spec.trace import Trace
from fairshare.workload.traces import Part, read_trace

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
GOOD = "2023-11-16 18:17:03.9799600,4808,10\n"


def _write(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return path


def _read(path: Path, **changes: Any) -> Part:
    return read_trace(Trace.model_validate({"path": path.name, **changes}), path.parent)


def test_times_are_exact_to_all_their_decimals(tmp_path: Path) -> None:
    """Seven decimals, none, an offset, Windows line ends and a byte-order mark are all read."""
    text = "\ufeff" + HEADER + GOOD + "2023-11-16 18:17:03.9799607,1,2\n\n"
    text += "2023-11-16 18:17:05,3,4\n2023-11-16 18:17:05.5+00:00,5,6"
    part = _read(_write(tmp_path, text.replace("\n", "\r\n")))
    assert [due.time_s for due in part.due] == pytest.approx([0, 7e-7, 1.02004, 1.52004], abs=1e-12)
    assert [(due.row.prompt_tokens, due.row.output_tokens) for due in part.due] == [
        (4808, 10),
        (1, 2),
        (3, 4),
        (5, 6),
    ]


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    """Another order and further columns do no harm."""
    path = _write(
        tmp_path, "GeneratedTokens,x,TIMESTAMP,ContextTokens\n10,?,2023-11-16 18:17:03,4808\n"
    )
    assert _read(path).due[0].row.prompt_tokens == 4808


def test_reading_stops_at_the_horizon(tmp_path: Path) -> None:
    """What lies past the horizon is not even looked at, and the trace has not ended."""
    path = _write(tmp_path, HEADER + GOOD + "2023-11-16 18:17:09,1,1\nrubbish\n")
    part = read_trace(Trace(path=str(path)), tmp_path, speed=2.0, horizon_s=2.0)
    assert len(part.due) == 1
    assert not part.ended


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"csv:1:1: .*no column TIMESTAMP"),
        ("TIMESTAMP,ContextTokens\n", r"csv:1:1: .*no column GeneratedTokens"),
        (HEADER, "holds no requests"),
        (HEADER + GOOD + "2023-11-16 18:17:04,17\n", r"csv:3:1: .*too few columns"),
        (HEADER + GOOD + "yesterday,17,3\n", r"csv:3:1: 'yesterday' is not a time"),
        (HEADER + GOOD + "2023-11-16 18:17:04.x,17,3\n", r"csv:3:1: .*is not a time"),
        (HEADER + "\n2023-11-16 18:17:04,many,3\n", r"csv:3:21: 'many' is not a number of tokens"),
        (HEADER + "2023-11-16 18:17:04,17,0\n", r"csv:2:24: '0' is not a number of tokens"),
        (HEADER + "2023-11-16 18:17:04,-3,1\n", r"csv:2:21: '-3' is not a number of tokens"),
        (HEADER + GOOD + "2023-11-16 18:17:03.9,1,1\n", r"csv:3:1: .*before that of the line"),
        ("\x00\x01\x02", "no column TIMESTAMP"),
    ],
)
def test_bad_traces_are_refused_with_their_place(tmp_path: Path, text: str, complaint: str) -> None:
    """Each mistake ends in one message that says file, line and column."""
    with pytest.raises(SpecError, match=complaint):
        _read(_write(tmp_path, text), format="azure")


def test_a_missing_trace_is_refused(tmp_path: Path) -> None:
    """The message names the path, and what paths are relative to."""
    with pytest.raises(SpecError, match="the trace does not exist") as caught:
        _read(tmp_path / "absent.csv")
    assert caught.value.hint is not None
    with pytest.raises(SpecError, match="is not a file"):
        _read(tmp_path)
