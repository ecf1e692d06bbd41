"""Requests read many at a time are the ones that are read one by one, and so are complaints."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest

from fairshare.errors import ResultsError
from fairshare.records import ErrorKind, Phase, RequestRecord
from fairshare.results.reading import FIELDS, Columns, by_field, read_columns, read_records

GOOD = RequestRecord("a", "chat", "s0", Phase.MEASURE, 5, 6, None, 7, [7, 9], [1, 2], 10)
LONG = 1500  # more than are looked at together


def write(folder: Path, lines: list[bytes]) -> Path:
    """A file of these lines."""
    path = folder / "requests.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def line(**changes: Any) -> bytes:
    """The good record with some fields changed, or left out where they are ``...``."""
    raw = {**orjson.loads(GOOD.to_json()), **changes}
    return orjson.dumps({n: v for n, v in raw.items() if v is not ...}) + b"\n"


def joined(parts: list[Columns]) -> dict[str, list[Any]]:
    """The columns of all parts."""
    return {name: [value for part in parts for value in part[name]] for name in FIELDS}


@pytest.mark.parametrize("packed", [False, True])
def test_columns_hold_what_the_records_hold(tmp_path: Path, packed: bool) -> None:
    """Failures, absent values and folders of before a field was there included."""
    old = dict.fromkeys(("app", "interaction", "call", "calls", "retry_after_s"), ...)
    lines = [line(id=str(n), error="timeout" if n % 3 else None) for n in range(LONG)]
    lines += [line(**old), line(chunk_ns=[], chunk_tokens=[], end_ns=None)]
    path = write(tmp_path, lines)
    if packed:
        path.with_name("requests.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    records = list(read_records(path, complete=True))
    found = joined(list(read_columns(path, complete=True)))
    assert len(records) == LONG + 2
    assert found == joined([by_field(records)])
    assert found["error"][1] == ErrorKind.TIMEOUT


def test_lines_of_the_same_older_fields_are_read_at_once(tmp_path: Path) -> None:
    """What they lack is absent, as of single records."""
    path = write(tmp_path, [line(retry_after_s=..., empty_chunks=..., chunk_tokens=[1, 1])] * 3)
    assert joined(list(read_columns(path, complete=True))) == joined(
        [by_field(read_records(path, complete=True))]
    )


@pytest.mark.parametrize(
    "damaged",
    [
        b"{\n", b"[]\n", b"1\n", b"\n", line(beauty=1), line(id=...), line(id=7), line(end_ns="x"),
        line(end_ns=True), line(end_ns=2**63), line(phase="late"), line(error="sadness"),
        line(chunk_ns=[1]), line(chunk_ns=None), line(chunk_ns=[1, 2.0]),
        line(chunk_ns=[1, 2**62 + 1]), line(app=3), line(intended_ns=None), line()[:-1],
    ],
)  # fmt: skip
def test_a_damaged_line_is_told_as_ever(tmp_path: Path, damaged: bytes) -> None:
    """With its place and the reason, wherever it stands among good ones."""
    path = write(tmp_path, [line()] * LONG + [damaged])
    told = []
    for read in (read_records, read_columns):
        with pytest.raises(ResultsError) as raised:
            list(read(path, complete=True))  # type: ignore[operator]
        told.append(str(raised.value))
    assert told[0] == told[1]
    assert f"requests.jsonl:{LONG + 1}: damaged" in told[0]


def test_a_line_cut_short_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    """In a folder that is not complete; the lines before it count."""
    path = write(tmp_path, [line(), line()[:-9]])
    assert len(joined(list(read_columns(path, complete=False)))["id"]) == 1
    assert list(read_columns(tmp_path / "nothing", complete=False)) == []
