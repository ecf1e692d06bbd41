"""Results of ``vllm bench serve --save-result --save-detailed``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import orjson

from fairshare.errors import Location, ResultsError
from fairshare.records import ErrorKind, RequestRecord
from fairshare.results.exchange_rows import (
    ForeignRun,
    Item,
    Timing,
    answered,
    failed,
    is_number,
    json_object,
    read_lines,
    shown,
    to_ns,
)

_DETAILS = ("input_lens", "output_lens", "ttfts", "itls", "errors")
_FACTS = ("date", "backend", "endpoint_type", "model_id", "num_prompts", "request_rate",
          "burstiness", "max_concurrency", "duration", "completed", "failed")  # fmt: skip
_UNPLACED = (
    "the file has no start times: every request counts as sent at 0, "
    "and what is shown over time means nothing"
)
_LONGEST_TEXT = 300
# What stands in a traceback of its client, and what that was.
_KINDS = (
    ("Too Many Requests", ErrorKind.THROTTLED),
    ("429", ErrorKind.THROTTLED),
    ("Timeout", ErrorKind.TIMEOUT),
    ("Cannot connect", ErrorKind.CONNECT),
    ("Disconnected", ErrorKind.DISCONNECT),
    ("ClientPayloadError", ErrorKind.DISCONNECT),
)


def read_vllm_bench(path: Path) -> Iterator[ForeignRun]:
    """One run per JSON object (``--append-result`` writes several). The model is the tenant.

    Raises:
        ResultsError: with the line, where something is not so; a file without details.
    """
    for number, content in _objects(path):
        item = Item(content, Location(path, number))
        if any(name not in content for name in _DETAILS):
            raise ResultsError(
                "the file has no figures of single requests",
                where=item.where,
                hint="write it with vllm bench serve --save-result --save-detailed",
            )
        yield _run(path, item)


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The file as one object, or one per line."""
    lines = list(read_lines(path))
    try:
        whole = orjson.loads(b"".join(line for _, line in lines))
    except orjson.JSONDecodeError:
        whole = None
    if isinstance(whole, dict):
        yield 1, whole
        return
    for number, line in lines:
        yield number, json_object(line, path, number)


def _run(path: Path, item: Item) -> ForeignRun:
    columns = {name: item.list_of(name) for name in _DETAILS}
    starts, queued = _optional(item, "start_times"), _optional(item, "queue_times")
    wholes = _optional(item, "latencies") or _optional(item, "e2els")
    given = (*columns.values(), starts, queued, wholes)
    lengths = {len(column) for column in given if column is not None}
    if len(lengths) != 1 or 0 in lengths:
        raise item.complaint(f"{', '.join(_DETAILS)} are not lists of equal length, one or more")
    tenant = item.text("model_id") if "model_id" in item.values else path.stem
    records = []
    began_s = min(item.checked_seconds("start_times", s) for s in starts) if starts else 0.0
    for index in range(lengths.pop()):
        one = Item(
            {name: column[index] for name, column in columns.items()}, item.where,
            f"request {index}",
        )  # fmt: skip
        sent_s = one.checked_seconds("start_times", starts[index]) - began_s if starts else 0.0
        wait_s = one.checked_seconds("queue_times", queued[index]) if queued else 0.0
        whole_s = one.checked_seconds("latencies", wholes[index]) if wholes else None
        records.append(_record(index, tenant, one, (sent_s - wait_s, sent_s, whole_s)))
    last_s = max(record.end_ns or 0 for record in records) / 1e9
    end_s = max(item.seconds("duration"), last_s) if "duration" in item.values else last_s
    if end_s <= 0:
        raise item.complaint("the run took no time")
    limit = item.values.get("max_concurrency")
    return ForeignRun(
        source=path,
        line=item.where.line or 1,
        scenario=path.stem,
        policy=None,
        records=records,
        window_s=(0.0, end_s),
        end_s=end_s,
        open_loop=is_number(item.values.get("request_rate")),
        concurrency=limit if type(limit) is int and limit > 0 else None,
        facts={name: item.values[name] for name in _FACTS if name in item.values},
        notes=() if starts else (_UNPLACED,),
    )


def _optional(item: Item, name: str) -> list[Any] | None:
    """A list that some versions do not write; ``e2els`` our own export did once."""
    return item.list_of(name) if item.values.get(name) else None


def _record(
    index: int, tenant: str, one: Item, times: tuple[float, float, float | None]
) -> RequestRecord:
    """``times`` are the intended one, the sending, and how long the answer took, if it is told."""
    intended_s, sent_s, whole_s = times
    error, ttft_s = one.values["errors"], None
    gaps = [one.checked_seconds("itls", gap) for gap in one.list_of("itls")]
    if is_number(one.values["ttfts"]) and one.values["ttfts"] > 0:
        ttft_s = one.seconds("ttfts")
    arrivals = [] if ttft_s is None else list(accumulate(gaps, initial=sent_s + ttft_s))
    last_s = arrivals[-1] if arrivals else sent_s
    end_s = last_s if whole_s is None else max(last_s, sent_s + whole_s)
    timing = Timing(intended_s, sent_s, arrivals[0] if arrivals else None, end_s)
    if error or ttft_s is None:
        if error is not None and not isinstance(error, str):
            raise one.complaint(f"errors is {shown(error)}, not a text")
        record = failed(index, tenant, timing, *_failure(error or ""))
    else:
        record = answered(
            index, tenant, timing, one.tokens("input_lens"), one.tokens("output_lens")
        )
    if len(arrivals) > 1:
        record.chunk_ns = [to_ns(arrival) for arrival in arrivals]
        record.chunk_tokens = [1] * len(arrivals)
    return record


def _failure(text: str) -> tuple[ErrorKind, str]:
    kind = next((kind for word, kind in _KINDS if word in text), ErrorKind.SERVER_ERROR)
    last = text.strip().splitlines()[-1:] or ["no token arrived"]
    return kind, last[0][-_LONGEST_TEXT:]
