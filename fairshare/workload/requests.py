"""The requests of one tenant in one cell, planned before anything is sent.

The k-th request of a tenant (id, prompt, lengths, intended time) depends on the cell's seed, the
tenant and k alone: not on other tenants, nor on how fast answers come, nor on the sharing mode. So
modes are compared on equal requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

import numpy as np

from fairshare.errors import SpecError
from fairshare.spec.scenario import Tenant
from fairshare.spec.workload import (
    ClosedLoop,
    JsonlPrompts,
    Length,
    ShareGptPrompts,
    TraceArrivals,
)
from fairshare.units import NS_PER_S
from fairshare.workload.arrivals import offsets_s
from fairshare.workload.contents import Adjustments, Content, ContentMaker
from fairshare.workload.files import FilePrompt, resolve
from fairshare.workload.jsonl import read_jsonl
from fairshare.workload.prompts import Vocabulary
from fairshare.workload.sharegpt import read_sharegpt
from fairshare.workload.traces import Trace, read_trace


@dataclass(slots=True)
class PlannedRequest:
    """One request to be sent. Either ``prompt_ids`` or ``prompt_text`` is set.

    ``intended_ns`` counts from the tenants' common start; None in closed loop. ``prompt_tokens``
    are those of the prompt's content: a chat template or a begin-of-text token comes on top (the
    server's usage says the total). It is 0 where a file's prompt could not be counted for want of
    a tokenizer.
    """

    id: str
    tenant: str
    intended_ns: int | None
    prompt_ids: list[int] | None
    prompt_text: str | None
    prompt_tokens: int
    max_tokens: int


def planned_requests(
    tenant: Tenant,
    *,
    cell_seed: int,
    horizon_s: float,
    window_start_s: float,
    window_s: float,
    load_scale: float,
    vocabulary: Vocabulary,
    base_dir: Path,
    as_text: bool = False,
    max_total_tokens: int | None = None,
    adjustments: Adjustments | None = None,
) -> Iterator[PlannedRequest]:
    """A tenant's requests in order: without end in closed loop, else those before ``horizon_s``.

    Files are read before this returns, so that what is wrong with them is known before the load
    starts. ``as_text`` asks for synthetic prompts as text (chat, TGI, engines that take no token
    ids). With ``max_total_tokens`` (the model's maximum, less what a template adds) requests are
    shortened to fit; ``adjustments`` counts, while the requests are drawn, what was changed.

    Raises:
        SpecError: a dataset or trace is missing or wrong, or exact text cannot be made.
        ValueError: ``max_total_tokens`` is below 2.
    """
    if max_total_tokens is not None and max_total_tokens < 2:
        raise ValueError(f"max_total_tokens is {max_total_tokens}: no room for prompt and output")
    times_rng, prompt_length_rng, output_rng, prompt_rng = _generators(cell_seed, tenant.name)
    adjustments = adjustments if adjustments is not None else Adjustments()
    maker = ContentMaker(vocabulary, prompt_rng, as_text, max_total_tokens, adjustments)
    arrival, prompts, output = tenant.arrival, tenant.prompts, tenant.output

    if isinstance(arrival, TraceArrivals):
        speed = arrival.time_scale * load_scale
        trace = read_trace(resolve(arrival.path, base_dir), speed=speed, horizon_s=horizon_s)
        return _replayed(tenant.name, trace, maker)
    if isinstance(prompts, JsonlPrompts | ShareGptPrompts):
        contents = maker.of_file(_read_prompts(prompts, output, base_dir), output, output_rng)
    else:
        assert prompts is not None and output is not None  # noqa: S101  (the tenant's validator)
        contents = maker.synthetic(prompts, output, (prompt_length_rng, output_rng))
    if isinstance(arrival, ClosedLoop):
        times: Iterator[float | None] = repeat(None)
    else:
        times = offsets_s(
            arrival,
            times_rng,
            duration_s=horizon_s,
            load_scale=load_scale,
            window_start_s=window_start_s,
            window_s=window_s,
        )
    return _planned(tenant.name, times, _primed(contents))


def _replayed(tenant: str, trace: Trace, maker: ContentMaker) -> Iterator[PlannedRequest]:
    maker.adjustments.trace_ended = trace.ended
    contents = maker.of_lengths((row.prompt_tokens, row.output_tokens) for row in trace.rows)
    return _planned(tenant, (row.offset_s for row in trace.rows), _primed(contents))


def check_sources(tenant: Tenant, base_dir: Path) -> None:
    """Read the tenant's dataset or trace to its end, as a preflight.

    Raises:
        SpecError: it is missing or wrong somewhere, with the place.
    """
    if isinstance(tenant.arrival, TraceArrivals):
        read_trace(resolve(tenant.arrival.path, base_dir))
    elif isinstance(tenant.prompts, JsonlPrompts | ShareGptPrompts):
        _read_prompts(tenant.prompts, tenant.output, base_dir)


def _generators(cell_seed: int, tenant: str) -> list[np.random.Generator]:
    """One stream each for times, prompt lengths, output lengths and prompts.

    Apart, so that drawing more of one does not shift the others.
    """
    name = int.from_bytes(hashlib.sha256(tenant.encode()).digest()[:16], "big")
    seeds = np.random.SeedSequence([cell_seed, name]).spawn(4)
    return [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]


def _read_prompts(
    prompts: JsonlPrompts | ShareGptPrompts, output: Length | None, base_dir: Path
) -> list[FilePrompt]:
    path = resolve(prompts.path, base_dir)
    if isinstance(prompts, ShareGptPrompts):
        return read_sharegpt(path)
    read = read_jsonl(path)
    lacking = next((p for p in read if p.max_tokens is None), None)
    if output is None and lacking is not None:
        raise SpecError(
            "the prompt has no max_tokens, and the tenant no output length",
            where=lacking.where,
            hint="add max_tokens to the line, or output: {kind: fixed, tokens: 64} to the tenant",
        )
    return read


def _primed(contents: Iterator[Content]) -> Iterator[Content]:
    """The same contents, the first made already: what cannot be made is known at once."""
    return chain([next(contents)], contents)


def _planned(
    tenant: str, times: Iterator[float | None], contents: Iterator[Content]
) -> Iterator[PlannedRequest]:
    for k, (time_s, content) in enumerate(zip(times, contents, strict=False)):
        intended_ns = None if time_s is None else round(time_s * NS_PER_S)
        yield PlannedRequest(f"{tenant}-{k:06d}", tenant, intended_ns, *content)
