"""Reading ``requests.jsonl``: every line is checked, for analysis trusts what it is given."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import orjson

from fairshare.errors import Location, ResultsError
from fairshare.records import RequestRecord
from fairshare.results.packed import opened, stored

_TEXT = ("id", "tenant", "server")
_OPTIONAL_TEXT = ("finish_reason", "error_text", "app", "interaction")
_OPTIONAL_COUNTS = (
    "sent_ns", "headers_ns", "first_token_ns", "end_ns", "prompt_tokens", "cached_tokens",
    "output_tokens", "status", "round", "call", "calls", "empty_chunks",
)  # fmt: skip
_optional_text, _optional_counts = attrgetter(*_OPTIONAL_TEXT), attrgetter(*_OPTIONAL_COUNTS)
_LARGEST = 2**62  # fits 64 bits with room for a difference


def read_records(path: Path, *, complete: bool) -> Iterator[RequestRecord]:
    """The records of a file (or of ``<file>.gz``), one by one; one that is absent holds none.

    With ``complete`` false, a last line without its line end is passed over: the writer was
    killed in the middle of it.

    Raises:
        ResultsError: a damaged line, with file and line.
    """
    if (there := stored(path)) is None:
        return
    with opened(there) as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                if complete:
                    raise ResultsError(
                        "damaged: the line is cut short", where=Location(there, number)
                    )
                return
            yield _parse(line, there, number)


def _parse(line: bytes, path: Path, number: int) -> RequestRecord:
    try:
        record = RequestRecord.from_mapping(_object(orjson.loads(line)))
        _check(record)
    except ValueError as error:
        raise ResultsError(
            f"damaged: {error}",
            where=Location(path, number),
            evidence=[line[:200].decode("utf-8", "backslashreplace").rstrip()],
            hint="the other cells can still be analysed: move this cell's folder out of cells/",
        ) from error
    return record


def _object(loaded: Any) -> dict[str, Any]:
    if isinstance(loaded, dict):
        return loaded
    raise ValueError("not a JSON object")


def _check(record: RequestRecord) -> None:
    """Types of all values.

    Raises:
        ValueError: a value of another type, or chunk lists that do not fit together.
    """
    for name in _TEXT:
        if type(getattr(record, name)) is not str:
            raise ValueError(f"{name} is not text")
    if type(record.intended_ns) is not int or abs(record.intended_ns) > _LARGEST:
        raise ValueError("intended_ns is not a whole number")
    for name, value in zip(_OPTIONAL_COUNTS, _optional_counts(record), strict=True):
        if value is not None and (type(value) is not int or abs(value) > _LARGEST):
            raise ValueError(f"{name} is not a whole number")
    for name, value in zip(_OPTIONAL_TEXT, _optional_text(record), strict=True):
        if value is not None and type(value) is not str:
            raise ValueError(f"{name} is not text")
    for chunks in (record.chunk_ns, record.chunk_tokens):
        if type(chunks) is not list or not set(map(type, chunks)) <= {int}:
            raise ValueError("a list of chunks does not hold whole numbers")
        if chunks and (max(chunks) > _LARGEST or min(chunks) < -_LARGEST):
            raise ValueError("a list of chunks holds an impossible number")
    if len(record.chunk_ns) != len(record.chunk_tokens):
        raise ValueError("chunk_ns and chunk_tokens differ in length")
