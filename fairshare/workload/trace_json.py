"""Traces as JSON: Mooncake's, our own records, and the result files of the VTC artifact."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from fairshare.errors import Location, SpecError
from fairshare.records import Phase
from fairshare.spec.lengths import MAX_TOKENS
from fairshare.spec.trace import TraceFormat
from fairshare.units import NS_PER_S
from fairshare.workload.files import bad_json
from fairshare.workload.trace_rows import Rows, TraceRow

_NS_PER_MS = 1_000_000


def format_of(first: Any) -> TraceFormat | None:
    """The format whose first line is this value, if it is one that is known."""
    if isinstance(first, dict):
        if "input_length" in first:
            return TraceFormat.MOONCAKE
        if "intended_ns" in first:
            return TraceFormat.RECORDS
        if "result" in first:
            return TraceFormat.VTC
    return None


def mooncake_rows(lines: Iterable[str], path: Path, value: str | None) -> Rows:
    """``timestamp`` (ms), ``input_length``, ``output_length``, ``hash_ids`` (its prompt's blocks).

    Raises:
        SpecError: with the line, where something is not so.
    """
    for number, item in _objects(lines, path):
        where = Location(path, number)
        yield TraceRow(
            round(_number(item, "timestamp", where) * _NS_PER_MS),
            _tokens(item, "input_length", where),
            _tokens(item, "output_length", where),
            number,
            hash_ids=_hash_ids(item.get("hash_ids", []), where),
            value=_value(item, value, where),
        )


def record_rows(lines: Iterable[str], path: Path, value: str | None) -> Rows:
    """The ``requests.jsonl`` of a cell, in order of intended time; drained requests are left out.

    Raises:
        SpecError: with the line, where something is not so.
    """
    rows = []
    for number, item in _objects(lines, path):
        where = Location(path, number)
        if item.get("phase") == Phase.DRAIN:
            continue
        failed = item.get("prompt_tokens") is None or item.get("output_tokens") is None
        rows.append(
            TraceRow(
                round(_number(item, "intended_ns", where)),
                0 if failed else _tokens(item, "prompt_tokens", where),
                0 if failed else _tokens(item, "output_tokens", where),
                number,
                app=_optional_text(item, "app", where),
                interaction=_optional_text(item, "interaction", where),
                value=_value(item, value, where),
            )
        )
    rows.sort(key=lambda row: row.time_ns)
    return iter(rows)


def vtc_rows(lines: Iterable[str], path: Path, value: str | None) -> Rows:
    """``result.responses`` of the file's first line, each with ``adapter_dir`` (the client).

    Raises:
        SpecError: with the line, where something is not so.
    """
    number, item = next(_objects(lines, path), (1, {}))
    result = item.get("result")
    responses = result.get("responses") if isinstance(result, dict) else None
    if not isinstance(responses, list):
        raise SpecError("the line has no list result.responses", where=Location(path, number))
    rows = []
    for response in responses:
        where = Location(path, number)
        if not isinstance(response, dict):
            raise SpecError("a response is not an object", where=where)
        rows.append(
            TraceRow(
                round(_number(response, "req_time", where) * NS_PER_S),
                _tokens(response, "prompt_len", where),
                _tokens(response, "output_len", where),
                number,
                session=_optional_text(response, "adapter_dir", where),
                value=_value(response, value, where),
            )
        )
    rows.sort(key=lambda row: row.time_ns)
    return iter(rows)


def _objects(lines: Iterable[str], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    return filter(None, map(partial(_object, path), enumerate(lines, start=1)))


def _object(path: Path, numbered: tuple[int, str]) -> tuple[int, dict[str, Any]] | None:
    number, line = numbered
    if not line.strip():
        return None
    try:
        item = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise bad_json(error, path, number) from None
    if not isinstance(item, dict):
        raise SpecError("the line is not a JSON object", where=Location(path, number))
    return number, item


def _number(item: dict[str, Any], key: str, where: Location) -> float:
    value = item.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**63:
        raise SpecError(f"{key} is {_shown(value)}, not a time of 0 or later", where=where)
    return value


def _tokens(item: dict[str, Any], key: str, where: Location) -> int:
    value = item.get(key)
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        raise SpecError(
            f"{key} is {_shown(value)}, not a number of tokens from 0 to {MAX_TOKENS}", where=where
        )
    return value


def _optional_text(item: dict[str, Any], key: str, where: Location) -> str | None:
    value = item.get(key)
    if value is not None and not isinstance(value, str):
        raise SpecError(f"{key} is {_shown(value)}, not a text", where=where)
    return value


def _value(item: dict[str, Any], key: str | None, where: Location) -> str | None:
    if key is None:
        return None
    value = item.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SpecError(
            f"the line has no text or number {key!r}" if value is None else f"{key} is no text",
            where=where,
            hint="its keys are: " + ", ".join(item),
        )
    return str(value)


def _hash_ids(ids: Any, where: Location) -> tuple[int, ...]:
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < 2**63 for i in ids):
        raise SpecError("hash_ids is not a list of whole numbers of 0 or more", where=where)
    return tuple(ids)


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:60]
