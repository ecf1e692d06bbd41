"""Every measured cell held against what the device, and time itself, allow.

Definitions of all checks: docs/plausibility.md. What the client's own lateness could falsify is
left out: a request's first token and end can be stamped late, never early.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairshare.analysis.arrays import Floats, Mask, Requests
from fairshare.analysis.deployment import (
    Deployment,
    ServerShare,
    UnknownLimitsError,
    deployment,
    mapping,
)
from fairshare.analysis.limits import (
    CONTEXT_BYTES,
    MARGIN,
    first_token_s,
    gigabytes,
    over,
    token_s,
    weights_text,
)
from fairshare.analysis.metrics import Window, tpot_s
from fairshare.analysis.table import format_count, format_number, format_seconds
from fairshare.analysis.violations import Assumed, Plausibility, Violation
from fairshare.records import CellResult
from fairshare.results import StoredCell, layout

_LEAST_ROUND_TRIP_S = 20e-6  # over a socket to a process beside it, before anything is computed
_CLOCKS_S = 0.005  # by which two stamps of the same machine may seem to be in the wrong order


@dataclass(frozen=True, slots=True)
class _Work:
    """What a server did in the window, as far as it surely did it there."""

    tokens: float
    contexts: float
    """Sum over the output tokens of the tokens that each looked back on."""
    prompt_flops: float
    sequences: int
    """The most in flight at once."""


def plausibility(
    stored: StoredCell, requests: Requests, window: Window, assumed: Assumed
) -> Plausibility:
    """Hold a measured cell against its device's limits.

    Raises:
        SpecError: what is assumed is not in the catalogue.
        ResultsError: the cell's own file is damaged.
    """
    found = list(_of_any_device(stored.result, requests))
    try:
        deployed = deployment(stored, assumed)
    except UnknownLimitsError as unknown:
        return Plausibility(tuple(found), str(unknown))
    lag_s = _lag_s(stored.result)
    pairs = [(server, _of_server(requests, server)) for server in deployed.servers]
    for server, own in pairs:
        found += _of_requests(server, own)
    done = [(server, _work(own, window, server)) for server, own in pairs]
    found += _of_traffic(deployed, done, window[1] - window[0] + lag_s)
    found += _of_memory(stored, deployed)
    return Plausibility(tuple(found), deployed.unchecked)


def _of_any_device(result: CellResult, requests: Requests) -> Iterator[Violation]:
    """What no device can do: answer before it is asked, or more at once than was asked."""
    early = requests.first_token_s < requests.sent_s - _CLOCKS_S
    early |= requests.end_s < np.fmax(requests.sent_s, requests.first_token_s) - _CLOCKS_S
    backwards = np.diff(requests.chunk_s) < -_CLOCKS_S
    borders = requests.chunk_from[1:-1] - 1
    backwards[borders[(borders >= 0) & (borders < len(backwards))]] = False
    if count := int(early.sum()) + int(backwards.sum()):
        text = f"{count} times an answer came before what must have gone before it"
        yield Violation("order of time", None, text)
    hasty = requests.ok & (requests.first_token_s - requests.sent_s < _LEAST_ROUND_TRIP_S) & ~early
    if count := int(hasty.sum()):
        text = (
            f"{count} first tokens came within {format_seconds(_LEAST_ROUND_TRIP_S)} of the "
            "sending, less than a request takes to a server and back"
        )
        yield Violation("round trip", None, text)
    if count := int((requests.cached_tokens > requests.prompt_tokens).sum()):
        text = f"{format_count(float(count))} requests had more prompt tokens cached than they had"
        yield Violation("cached tokens", None, text)
    flying = mapping(result.client.get("concurrency"))
    for name in requests.tenants:
        asked = mapping(flying.get(name)).get("requested")
        if isinstance(asked, int) and asked > 0:
            seen = _most_at_once(requests.of_tenant(name))
            if seen > asked:
                text = f"{seen} requests were in flight at once, where {asked} were let"
                yield Violation("concurrency", name, text, seen / asked)


def _of_server(requests: Requests, server: ServerShare) -> Requests:
    names = [i for i, name in enumerate(requests.tenants) if name in server.tenants]
    if len(names) == len(requests.tenants):
        return requests
    return requests.select(np.isin(requests.tenant, names))


def _of_requests(server: ServerShare, requests: Requests) -> Iterator[Violation]:
    """Floors of single requests (first token, whole answer) and of a tenant's time per token."""
    served, hardware = server.served, server.hardware
    prompts = np.nan_to_num(requests.prompt_tokens)
    computed = np.where(
        np.isnan(requests.cached_tokens), 0.0, prompts - np.nan_to_num(requests.cached_tokens)
    )
    first = np.asarray(first_token_s(served, hardware, np.clip(computed, 0, None)), float)
    output = np.nan_to_num(requests.output_tokens)
    gap = np.asarray(token_s(served, hardware, prompts + output / 2), float)
    whole = first + np.clip(output - served.tokens_a_step, 0, None) * gap
    because = weights_text(served, hardware)
    yield from _below(
        "first token", requests, requests.first_token_s - requests.sent_s, first,
        f"{because}, and the prompt's FLOPs at {hardware.flops / 1e12:,.0f} TFLOP/s; a prefix "
        "cache that was not told of would explain it",
    )  # fmt: skip
    answered = np.where(requests.ok, requests.end_s - requests.sent_s, np.nan)
    yield from _below("whole request", requests, answered, whole, because)
    yield from _token_times(requests, gap, because)


def _below(
    check: str, requests: Requests, took_s: Floats, floor_s: Floats, because: str
) -> Iterator[Violation]:
    """One violation per tenant whose requests took less than the least possible time."""
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = floor_s / np.clip(took_s, 1e-9, None)
    bad: Mask = np.nan_to_num(beyond) > MARGIN
    for number in np.unique(requests.tenant[bad]):
        mine = bad & (requests.tenant == number)
        worst = int(np.argmax(np.where(mine, beyond, 0.0)))
        tokens = (requests.prompt_tokens[worst], requests.output_tokens[worst])
        asked, got = (format_count(float(np.nan_to_num(each))) for each in tokens)
        all_of_it = int((~np.isnan(took_s) & (requests.tenant == number)).sum())
        text = (
            f"{mine.sum():,} of {all_of_it:,} requests were too quick; the worst ({asked} prompt, "
            f"{got} output tokens) took {format_seconds(max(0.0, float(took_s[worst])))} and needs "
            f"{format_seconds(float(floor_s[worst]))} at least: {because}"
        )
        yield Violation(check, requests.tenants[number], text, float(beyond[worst]))


def _token_times(requests: Requests, floor_s: Floats, because: str) -> Iterator[Violation]:
    """A median time per token below the floor: single ones may have been stamped in a bunch."""
    took = tpot_s(requests)
    for number, name in enumerate(requests.tenants):
        mine = (requests.tenant == number) & requests.ok & (took >= 0)
        if not mine.any():
            continue
        beyond = float(np.median(floor_s[mine] / np.clip(took[mine], 1e-9, None)))
        if beyond > MARGIN:
            text = (
                f"median {format_seconds(float(np.median(took[mine])))}, "
                f"{format_seconds(float(np.median(floor_s[mine])))} at least ({over(beyond)}): "
                f"{because}"
            )
            yield Violation("time per token", name, text, beyond)


def _work(requests: Requests, window: Window, server: ServerShare) -> _Work:
    start, end = window
    output = np.where(
        np.isnan(requests.output_tokens), requests.counted_tokens, requests.output_tokens
    )
    prompts = np.nan_to_num(requests.prompt_tokens)
    inside = (requests.sent_s >= start) & (requests.end_s <= end)
    tokens = float(output[inside].sum())
    contexts = float((output * (prompts + output / 2))[inside].sum())
    partly = ~inside & (requests.chunk_counts > 1)
    partly &= (requests.sent_s < end) & ~(requests.end_s < start)
    more = _chunks_within(requests.select(partly), window)
    first_in = (requests.sent_s >= start) & (requests.first_token_s <= end)
    computed = np.clip(prompts - requests.cached_tokens, 0, None)  # nan: not told, so not counted
    flops = np.nan_to_num(np.asarray(server.served.prompt_flops(computed), float))
    overlapping = (requests.sent_s < end) & ~(requests.end_s < start)
    return _Work(
        tokens + more[0],
        contexts + more[1],
        float(flops[first_in].sum()),
        _most_at_once(requests.select(overlapping)),
    )


def _chunks_within(requests: Requests, window: Window) -> tuple[float, float]:
    """Tokens of chunks in the window, and the sum of what they looked back on."""
    if not len(requests):
        return 0.0, 0.0
    before = np.concatenate(([0.0], np.cumsum(requests.chunk_tokens)))
    own = np.repeat(before[requests.chunk_from[:-1]], requests.chunk_counts)
    context = np.repeat(np.nan_to_num(requests.prompt_tokens), requests.chunk_counts)
    context += before[:-1] - own + requests.chunk_tokens / 2
    within = (requests.chunk_s >= window[0]) & (requests.chunk_s < window[1])
    tokens = requests.chunk_tokens[within]
    return float(tokens.sum()), float((tokens * context[within]).sum())


def _most_at_once(requests: Requests) -> int:
    """The most requests in flight together; one that ends as another is sent makes room for it."""
    end = np.where(np.isnan(requests.end_s), np.inf, requests.end_s)
    sent = requests.sent_s[~np.isnan(requests.sent_s)]
    times = np.concatenate((sent, end[~np.isnan(requests.sent_s)]))
    steps = np.concatenate((np.ones(len(sent)), -np.ones(len(sent))))
    order = np.lexsort((steps, times))
    return int(np.cumsum(steps[order]).max(initial=0))


def _of_traffic(
    deployed: Deployment, done: Sequence[tuple[ServerShare, _Work]], length_s: float
) -> Iterator[Violation]:
    """Bytes that had to be moved and FLOPs that had to be done in the window, against the peaks."""
    moved, computed = 0.0, 0.0
    said: list[str] = []
    for server, work in done:
        needed, text = _needed(server, work)
        flops = server.served.token_flops(work.tokens, work.contexts) + work.prompt_flops
        if server.apart:
            yield from _beyond_bandwidth(needed, length_s, server.hardware, [text], server.name)
        yield from _beyond_compute(flops, length_s, server.hardware.flops, server.name)
        moved, computed, said = moved + needed, computed + flops, [*said, text]
    if len(done) > 1 or not any(server.apart for server, _ in done):
        yield from _beyond_bandwidth(moved, length_s, deployed.hardware, said, None)
    if len(done) > 1:
        yield from _beyond_compute(computed, length_s, deployed.hardware.flops, None)


def _needed(server: ServerShare, work: _Work) -> tuple[float, str]:
    """Bytes that a server had to move for its tokens, and the arithmetic."""
    served = server.served
    if not work.tokens:
        return 0.0, ""
    together = min(work.sequences or 1, server.sequences or work.sequences or 1)
    mean_context = work.contexts / work.tokens
    if mean_context:
        together = max(1, int(min(together, server.cache_tokens / mean_context)))
    steps = work.tokens / together / served.tokens_a_step
    cache = served.cache_bytes_per_token * work.contexts / served.tokens_a_step
    text = (
        f"{format_count(work.tokens)} output tokens of at most {together} sequences at once are "
        f"{format_number(steps)} steps of {gigabytes(served.streamed_bytes)} of weights and "
        f"{gigabytes(cache)} of cache"
    )
    return steps * served.streamed_bytes + cache, text


def _beyond_bandwidth(
    moved: float, length_s: float, hardware: Any, said: Sequence[str], name: str | None
) -> Iterator[Violation]:
    rate = moved / length_s
    factor = rate / hardware.bandwidth_bytes_s
    if factor > MARGIN:
        what = "; ".join(text for text in said if text)
        text = (
            f"{what}: {rate / 1e9:,.0f} GB/s over {format_seconds(length_s)}, where "
            f"{hardware.bandwidth_bytes_s / 1e9:,.0f} GB/s is the peak ({over(factor)})"
        )
        yield Violation("memory bandwidth", name, text, factor)


def _beyond_compute(
    flops: float, length_s: float, peak: float, name: str | None
) -> Iterator[Violation]:
    factor = flops / length_s / peak
    if factor > MARGIN:
        text = (
            f"{flops / length_s / 1e12:,.1f} TFLOP/s of prompts and tokens over "
            f"{format_seconds(length_s)}, where {peak / 1e12:,.0f} is the peak ({over(factor)})"
        )
        yield Violation("compute", name, text, factor)


def _of_memory(stored: StoredCell, deployed: Deployment) -> Iterator[Violation]:
    """Weights, caches and contexts of all servers against the device's memory."""
    capacity = deployed.capacity_bytes
    needed, parts = 0.0, []
    for server in deployed.servers:
        cache = (server.claimed_cache_tokens or 0) * server.served.cache_bytes_per_token
        needed += server.served.weight_bytes + cache + CONTEXT_BYTES
        parts.append(f"{server.name} {gigabytes(server.served.weight_bytes)} + {gigabytes(cache)}")
        claimed = server.claimed_cache_tokens
        if claimed is not None and claimed > server.cache_tokens * MARGIN:
            text = (
                f"a cache of {claimed:,} tokens was told, and beside the weights there is room for "
                f"{server.cache_tokens:,.0f}"
            )
            yield Violation("memory", server.name, text, claimed / max(1.0, server.cache_tokens))
    if needed > capacity * MARGIN and deployed.hardware.memory_bytes == capacity:
        text = (
            f"weights + cache: {', '.join(parts)}; with {gigabytes(CONTEXT_BYTES)} for each server "
            f"{gigabytes(needed)} of {gigabytes(capacity)} ({over(needed / capacity)})"
        )
        yield Violation("memory", None, text, needed / capacity)
    seen = [mapping(share).get("used_bytes") for share in stored.result.shares]
    used = sum(each for each in seen if isinstance(each, int | float))
    if used > capacity * MARGIN and deployed.hardware.memory_bytes == capacity:
        text = f"the servers hold {gigabytes(used)} of {gigabytes(capacity)} together"
        yield Violation("memory", None, text, used / capacity)
    yield from _of_telemetry(stored, capacity)


def _of_telemetry(stored: StoredCell, capacity: float) -> Iterator[Violation]:
    """What the GPU's own counters cannot say."""
    path = stored.dir / layout.GPU
    if not path.is_file():
        return
    most: dict[str, float] = {"memory_used_bytes": 0.0, "gpu_utilisation": 0.0}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for line in csv.DictReader(file):
            for name, largest in most.items():
                most[name] = max(largest, _number(line.get(name)))
    if (used := most["memory_used_bytes"]) > capacity * MARGIN:
        text = f"{gigabytes(used)} in use of {gigabytes(capacity)} ({layout.GPU})"
        yield Violation("memory", None, text, used / capacity)
    if (busy := most["gpu_utilisation"]) > MARGIN:
        text = f"{busy:.0%} of the GPU's time in use ({layout.GPU})"
        yield Violation("utilisation", None, text, busy)


def _number(text: Any) -> float:
    try:
        return float(text or 0)
    except (TypeError, ValueError):
        return 0.0  # whoever draws it complains


def _lag_s(result: CellResult) -> float:
    """By how much tokens may have been stamped late, so that they seem to belong to the window."""
    lag = mapping(result.client.get("loop_lag_ms")).get("max")
    return float(lag) / 1000 if isinstance(lag, int | float) and lag > 0 else 0.0
