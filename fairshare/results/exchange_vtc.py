"""Results of the VTC artifact (OSDI '24): a JSON line with ``config`` and ``result.responses``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairshare.errors import Location, ResultsError
from fairshare.records import ErrorKind, RequestRecord
from fairshare.results.exchange_rows import (
    ForeignRun,
    Item,
    Timing,
    answered,
    failed,
    json_object,
    read_lines,
)

_HORIZON_S = 600.0  # its evaluation looks at ten minutes, however long requests arrive
_SUITE = re.compile(r"(?:(?P<scheduler>.+)_)?all_results_(?P<suite>.+)")
_SCHEDULER = re.compile(r"(fcfs|slora|lcf|w?vtc|lshare|rpm|m?drr|fs)(?![a-z])", re.IGNORECASE)
_FACTS = ("duration", "req_rate", "mode", "on_off", "cv", "alpha", "input_range", "output_range")
ABORTED = "aborted (latency -1)"


def read_vtc(path: Path) -> Iterator[ForeignRun]:
    """One run per line. The measured window is the first ten minutes, or all of a shorter run.

    Raises:
        ResultsError: with the line, where something is not so.
    """
    scenario, policy = names(path)
    for number, line in read_lines(path):
        content = json_object(line, path, number)
        result, responses = responses_of(content, path, number)
        records = [_record(index, response) for index, response in enumerate(responses)]
        end_s = run_end_s(result, records)
        yield ForeignRun(
            source=path,
            line=number,
            scenario=scenario,
            policy=policy,
            records=records,
            window_s=(0.0, min(_HORIZON_S, end_s)),
            end_s=end_s,
            open_loop=True,
            facts=facts(content),
        )


def names(path: Path) -> tuple[str, str]:
    """Suite and scheduler, which only the file's name and folder tell.

    ``VTC/all_results_overload.jsonl`` and ``VTC_all_results_overload.jsonl`` are ``overload``
    under ``vtc``; of other names the scheduler is ``unknown``.
    """
    matched = _SUITE.fullmatch(path.stem)
    if matched is None:
        return path.stem, "unknown"
    scheduler = matched["scheduler"] or path.resolve().parent.name
    known = _SCHEDULER.match(scheduler)
    return matched["suite"], scheduler.lower() if known else "unknown"


def responses_of(content: dict[str, Any], path: Path, number: int) -> tuple[Item, list[Item]]:
    """``result`` and its ``responses``.

    Raises:
        ResultsError: there are none, or they are something else.
    """
    where = Location(path, number)
    result = content.get("result")
    responses = result.get("responses") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(responses, list):
        raise ResultsError("the line has no list result.responses", where=where)
    if not responses:
        raise ResultsError("result.responses is empty", where=where)
    items = []
    for index, response in enumerate(responses):
        if not isinstance(response, dict):
            raise ResultsError(f"response {index} is not an object", where=where)
        items.append(Item(response, where, f"response {index}"))
    return Item(result, where), items


def run_end_s(result: Item, records: list[RequestRecord]) -> float:
    """When the run ended: as it says itself (``total_time``), or with its last answer."""
    last = max(record.end_ns or 0 for record in records) / 1e9
    total = result.values.get("total_time")
    end = last if total is None else max(result.seconds("total_time"), last)
    if end <= 0:
        raise result.complaint("the run took no time")
    return end


def facts(content: dict[str, Any]) -> dict[str, Any]:
    """What the file says of the run."""
    config = content.get("config")
    config = config if isinstance(config, dict) else {}
    return {name: config[name] for name in _FACTS if name in config}


def _record(index: int, response: Item) -> RequestRecord:
    tenant, asked_s = response.text("adapter_dir"), response.seconds("req_time")
    prompt, output = response.tokens("prompt_len"), response.tokens("output_len")
    timing = timing_of(response, asked_s, asked_s, None)
    if timing.first_token_s is None:
        return failed(index, tenant, timing, ErrorKind.ABORTED, ABORTED)
    return answered(index, tenant, timing, prompt, output)


def timing_of(item: Item, intended_s: float, sent_s: float, ended_s: float | None) -> Timing:
    """When what happened, from ``first_token_latency`` and ``request_latency``.

    An aborted request (-1) has no first token, and ended at ``ended_s``: where nobody knows when,
    it counts as refused at once.

    Raises:
        ResultsError: the first token came after the last.
    """
    first, whole = item.latency("first_token_latency"), item.latency("request_latency")
    if first is None or whole is None:
        return Timing(intended_s, sent_s, None, sent_s if ended_s is None else ended_s)
    if first > whole:
        raise item.complaint(f"first_token_latency {first:g} is above request_latency {whole:g}")
    return Timing(intended_s, sent_s, sent_s + first, sent_s + whole)
