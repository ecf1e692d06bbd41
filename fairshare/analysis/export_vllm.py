"""Results as ``vllm bench serve --save-detailed`` writes them: ``import`` reads them back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import orjson

from fairshare.records import CellResult, ErrorKind, Phase, RequestRecord
from fairshare.results import StoredCell
from fairshare.units import NS_PER_S

_PERCENTILES = (50, 90, 95, 99)
# The words by which readers of such files tell kinds of failures, as aiohttp prints them.
_WORDS = {
    ErrorKind.THROTTLED: "Too Many Requests",
    ErrorKind.TIMEOUT: "TimeoutError",
    ErrorKind.STALLED: "TimeoutError",
    ErrorKind.CONNECT: "Cannot connect to host",
    ErrorKind.DISCONNECT: "ServerDisconnectedError",
}


def vllm_files(stored: StoredCell) -> Iterator[tuple[str, bytes]]:
    """File names and contents of a cell: one for each tenant that sent anything when measured.

    The tenant stands as the model, since such a file knows no tenants. Only requests of the
    measured phase are in it, timed from their sending, with how long after their schedule that was
    (``queue_times``).
    """
    records: dict[str, list[RequestRecord]] = {}
    for record in stored.records():
        if record.phase is Phase.MEASURE and record.sent_ns is not None:
            records.setdefault(record.tenant, []).append(record)
    for number, (tenant, found) in enumerate(sorted(records.items())):
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", tenant)[:40].strip(".-") or "tenant"
        content = _run(stored.result, tenant, found)
        name = f"{stored.dir.name}.{number}-{slug}.json"
        yield name, orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def _run(result: CellResult, tenant: str, records: list[RequestRecord]) -> dict[str, Any]:
    said = next((each for each in result.tenants if each["name"] == tenant), {})
    open_loop = bool(said.get("open_loop"))
    window = result.window_ns or (0, max(record.end_ns or 0 for record in records))
    duration_s = (window[1] - window[0]) / NS_PER_S
    details = _details(records)
    answered = [record for record in records if record.ok]
    began = result.started_at
    when = None if began is None else datetime.fromtimestamp(began, UTC).strftime("%Y%m%d-%H%M%S")
    return {
        "date": when,
        "backend": "fairshare",
        "endpoint_type": "openai",
        "label": f"{result.id}: {result.provenance.value}",
        "marks": [mark.value for mark in result.marks],
        "model_id": tenant,
        "tokenizer_id": None,
        "num_prompts": len(records),
        "request_rate": len(records) / duration_s if open_loop else "inf",
        "burstiness": None,  # arrivals are of more kinds than it can tell
        "max_concurrency": None if open_loop else result.key.concurrency,
        "duration": duration_s,
        "completed": len(answered),
        "failed": len(records) - len(answered),
        "total_input_tokens": sum(record.prompt_tokens or 0 for record in answered),
        "total_output_tokens": sum(record.output_tokens or 0 for record in answered),
        "request_goodput": _goodput(answered, said.get("slo") or {}, duration_s),
        **_statistics(answered, details, [record.ok for record in records], duration_s),
        **_busiest_second(answered),
        "rtfx": 0.0,  # of speech
        **details,
    }


def _details(records: Sequence[RequestRecord]) -> dict[str, list[Any]]:
    """The lists that have an entry for each request; times in seconds."""
    return {
        "input_lens": [record.prompt_tokens or 0 for record in records],
        "output_lens": [record.output_tokens or 0 for record in records],
        "ttfts": [_after_sending(record, record.first_token_ns) for record in records],
        "itls": [_gaps(record.chunk_ns) for record in records],
        "latencies": [_after_sending(record, record.end_ns) for record in records],
        "start_times": [(record.sent_ns or 0) / NS_PER_S for record in records],
        "queue_times": [max(0.0, -_after_sending(r, r.intended_ns)) for r in records],
        "generated_texts": [""] * len(records),  # no answer's text is kept
        "errors": [_error(record) for record in records],
    }


def _after_sending(record: RequestRecord, then_ns: int | None) -> float:
    return 0.0 if then_ns is None or record.sent_ns is None else (then_ns - record.sent_ns) / 1e9


def _gaps(chunk_ns: Sequence[int]) -> list[float]:
    return [(after - before) / 1e9 for before, after in pairwise(chunk_ns)]


def _error(record: RequestRecord) -> str:
    if record.error is None:
        return ""
    return f"{_WORDS.get(record.error, record.error.value)}: {record.error_text or ''}"


def _goodput(
    answered: Sequence[RequestRecord], slo: Mapping[str, float | None], duration_s: float
) -> float | None:
    """Answers a second within all limits, from their sending; None where nothing was promised."""
    limits = {name: limit for name, limit in slo.items() if limit is not None}
    if not limits:
        return None
    good = 0
    for record in answered:
        ttft_s = _after_sending(record, record.first_token_ns)
        e2e_s = _after_sending(record, record.end_ns)
        after_first = (record.output_tokens or 0) - 1
        tpot_s = (e2e_s - ttft_s) / after_first if after_first > 0 else 0.0
        took = {"ttft_s": ttft_s, "tpot_s": tpot_s, "e2e_s": e2e_s}
        good += all(took[name] <= limit for name, limit in limits.items() if name in took)
    return good / duration_s


def _busiest_second(answered: Sequence[RequestRecord]) -> dict[str, float | int]:
    """Most chunks in one second, and most requests that lived in one, from the first sending on."""
    if not answered:
        return {"max_output_tokens_per_s": 0.0, "max_concurrent_requests": 0}
    began = min(record.sent_ns or 0 for record in answered)
    chunks: Counter[int] = Counter()
    alive: Counter[int] = Counter()
    for record in answered:
        chunks.update((then - began) // NS_PER_S for then in record.chunk_ns)
        ended = record.end_ns or record.sent_ns or 0
        alive.update(
            range(((record.sent_ns or 0) - began) // NS_PER_S, (ended - began) // NS_PER_S + 1)
        )
    return {
        "max_output_tokens_per_s": float(max(chunks.values(), default=0)),
        "max_concurrent_requests": max(alive.values(), default=0),
    }


def _statistics(
    answered: Sequence[RequestRecord],
    details: dict[str, list[Any]],
    ok: Sequence[bool],
    duration_s: float,
) -> dict[str, float]:
    """The summary that vLLM writes, by its definitions: successes only, over the duration."""
    outputs = sum(record.output_tokens or 0 for record in answered)
    inputs = sum(record.prompt_tokens or 0 for record in answered)
    kept = {
        name: [value for value, good in zip(details[name], ok, strict=True) if good]
        for name in ("ttfts", "itls", "latencies", "output_lens")
    }
    columns = zip(kept["ttfts"], kept["latencies"], kept["output_lens"], strict=True)
    samples = {
        "ttft": kept["ttfts"],
        "tpot": [(e2e - ttft) / (tokens - 1) for ttft, e2e, tokens in columns if tokens > 1],
        "itl": [gap for gaps in kept["itls"] for gap in gaps],
        "e2el": kept["latencies"],
    }
    found = {
        "request_throughput": len(answered) / duration_s,
        "output_throughput": outputs / duration_s,
        "total_token_throughput": (inputs + outputs) / duration_s,
    }
    for name, values in samples.items():
        found |= _summary(name, 1e3 * np.array(values or [0.0]))
    return found


def _summary(name: str, values_ms: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    percentiles = np.percentile(values_ms, _PERCENTILES)
    return {
        f"mean_{name}_ms": float(values_ms.mean()),
        f"median_{name}_ms": float(np.median(values_ms)),
        f"std_{name}_ms": float(values_ms.std()),
        **{
            f"p{percent}_{name}_ms": float(value)
            for percent, value in zip(_PERCENTILES, percentiles, strict=True)
        },
    }
