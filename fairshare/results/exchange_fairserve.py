"""Results of FairServe's artifact: calls of interactions, as JSON, CSV or printed lines."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from fairshare.errors import Location, ResultsError
from fairshare.records import ErrorKind, RequestRecord
from fairshare.results.exchange_rows import (
    ForeignRun,
    Item,
    answered,
    failed,
    json_object,
    read_lines,
)
from fairshare.results.exchange_vtc import ABORTED, facts, responses_of, run_end_s, timing_of

# A printed line: name and value by turns, in this order.
_COLUMNS = (
    "interaction_id", "req_id", "request_start_time", "request_end_time", "req_time",
    "adapter_dir", "prompt_len", "output_len", "sys_len", "app", "input99app", "sys99app",
    "output99app", "priorityfactor", "app_limit", "request_latency", "first_token_latency",
    "llmcalls", "llmcalls_made",
)  # fmt: skip
_NAMED = {name: re.compile(rf"\b{name}\b:?[ =]+([^\s,]+)") for name in _COLUMNS}
_NOTE = "calls of an interaction are those that the file has"


def read_fairserve(path: Path) -> Iterator[ForeignRun]:
    """One run per JSON line of the artifact, or one of a whole file of other lines.

    Lines are printed ones (names and values, or the values alone with commas between) or CSV with
    a header. Lines of a log that are no result are passed over.

    Raises:
        ResultsError: with the line, where something is not so, or if there is no result.
    """
    lines = read_lines(path)
    first = next(lines, (1, b""))
    if not first[1].lstrip().startswith(b"{"):
        items = list(_items([first, *lines], path))
        if not items:
            raise ResultsError("there is no line of results", where=Location(path))
        yield _run(path, items, Item({}, Location(path)), {})
        return
    for number, line in [first, *lines]:
        content = json_object(line, path, number)
        result, items = responses_of(content, path, number)
        yield _run(path, items, result, facts(content))


def _run(path: Path, items: list[Item], result: Item, said: dict[str, Any]) -> ForeignRun:
    scenario, policy = _names(path)
    began_s = _began_s(items)
    records = [_record(index, item, began_s) for index, item in enumerate(items)]
    calls = Counter((record.tenant, record.interaction) for record in records)
    for record in records:
        record.calls = calls[record.tenant, record.interaction]
    end_s = run_end_s(result, records)
    return ForeignRun(
        source=path,
        line=result.where.line or 1,
        scenario=scenario,
        policy=policy,
        records=records,
        window_s=(0.0, end_s),
        end_s=end_s,
        open_loop=True,
        facts=said,
        notes=(_NOTE,),
    )


def _names(path: Path) -> tuple[str, str]:
    """Trace, and scheduler with its limit, of ``TRACE.csv___SCHEDULER___LIMIT___APP_LIMIT``."""
    trace, *parts = path.stem.split("___")
    scenario = trace.removesuffix(".csv")
    if not parts:
        return scenario, "unknown"
    return scenario, "-".join(part for part in parts[:2] if part)


def _began_s(items: list[Item]) -> float | None:
    """The clock's time at the run's start, where the lines tell when requests were sent."""
    if any("request_start_time" not in item.values for item in items):
        return None
    return min(item.seconds("request_start_time") - item.seconds("req_time") for item in items)


def _record(index: int, item: Item, began_s: float | None) -> RequestRecord:
    tenant, intended_s = item.text("adapter_dir"), item.seconds("req_time")
    prompt, output = item.tokens("prompt_len"), item.tokens("output_len")
    sent_s, ended_s = intended_s, None
    if began_s is not None:
        sent_s = item.seconds("request_start_time") - began_s
        ended_s = max(sent_s, item.seconds("request_end_time") - began_s)
    timing = timing_of(item, intended_s, sent_s, ended_s)
    if timing.first_token_s is None:
        record = failed(index, tenant, timing, ErrorKind.ABORTED, ABORTED)
    else:
        record = answered(index, tenant, timing, prompt, output)
    record.app, record.interaction = item.text("app"), item.text("interaction_id")
    record.call = item.whole("llmcalls_made")
    return record


def _items(lines: list[tuple[int, bytes]], path: Path) -> Iterator[Item]:
    header: list[str] | None = None
    for number, line in lines:
        where = Location(path, number)
        text = line.decode("utf-8", "backslashreplace").strip()
        cells = [cell.strip() for cell in next(csv.reader([text]), [])]
        if {"adapter_dir", "interaction_id"} <= set(cells):
            header = cells
        elif header is not None:
            if len(cells) != len(header):
                raise ResultsError(
                    f"{len(cells)} columns, and the header has {len(header)}", where=where
                )
            yield Item(dict(zip(header, map(_value, cells), strict=True)), where)
        elif "adapter_dir" in text:
            found = {name: form.search(text) for name, form in _NAMED.items()}
            yield Item({name: _value(m[1]) for name, m in found.items() if m}, where)
        elif len(cells) == len(_COLUMNS):
            yield Item(dict(zip(_COLUMNS, map(_value, cells), strict=True)), where)


def _value(text: str) -> Any:
    """A number where it is one; the unit of seconds is taken off."""
    text = text.removesuffix(" s")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return value if isinstance(value, int | float) else text
