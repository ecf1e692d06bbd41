"""The requests of one tenant in one cell, planned before anything is sent.

The k-th request of a tenant (id, prompt, lengths, intended time) depends on the cell's seed, the
tenant and k alone (and on who shares a trace with it): not on other tenants, nor on how fast
answers come, nor on the sharing mode. So modes are compared on equal requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain, islice, repeat, tee
from pathlib import Path

import numpy as np

from fairshare.errors import SpecError
from fairshare.spec.lengths import Length
from fairshare.spec.scenario import Scenario, Tenant
from fairshare.spec.trace import SharedTrace, Trace
from fairshare.spec.workload import (
    ClosedLoop,
    JsonlPrompts,
    SharedTraceArrivals,
    ShareGptPrompts,
    TraceArrivals,
)
from fairshare.units import NS_PER_S
from fairshare.workload.arrivals import offsets_s
from fairshare.workload.blocks import Blocks
from fairshare.workload.contents import Adjustments, Content, ContentMaker
from fairshare.workload.files import FilePrompt, resolve
from fairshare.workload.jsonl import read_jsonl
from fairshare.workload.prompts import Vocabulary
from fairshare.workload.sharegpt import read_conversations, read_sharegpt
from fairshare.workload.traces import Due, check_trace, read_parts
from fairshare.workload.turns import Moment, Turn, call_counts, chained, replayed

_PROMPTS = 3  # the place of the prompts' stream among those of a tenant


@dataclass(slots=True)
class PlannedRequest:
    """One request to be sent. Either ``prompt_ids`` or ``prompt_text`` is set.

    ``intended_ns`` counts from the tenants' common start; None in closed loop. A request with a
    ``turn`` after the first of its interaction waits for the one before it too. ``prompt_tokens``
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
    turn: Turn | None = None


def planned_requests(
    tenant: Tenant,
    *,
    cell_seed: int,
    contents_seed: int | None = None,
    horizon_s: float,
    window_start_s: float,
    window_s: float,
    load_scale: float,
    vocabulary: Vocabulary,
    base_dir: Path,
    as_text: bool = False,
    max_total_tokens: int | None = None,
    adjustments: Adjustments | None = None,
    shared: SharedTrace | None = None,
    sharers: Sequence[str] = (),
) -> Iterator[PlannedRequest]:
    """A tenant's requests in order: without end in closed loop, else those before ``horizon_s``.

    Files are read before this returns, so that what is wrong with them is known before the load
    starts. ``as_text`` asks for synthetic prompts as text (chat, TGI, engines that take no token
    ids). With ``max_total_tokens`` (the model's maximum, less what a template adds) requests are
    shortened to fit; ``adjustments`` counts, while the requests are drawn, what was changed.
    ``shared`` is the scenario's trace and ``sharers`` the tenants that have parts of it. With
    ``contents_seed`` synthetic prompts have other words, as many and at the same times.

    Raises:
        SpecError: a dataset or trace is missing or wrong, or exact text cannot be made.
        ValueError: ``max_total_tokens`` is below 2.
    """
    if max_total_tokens is not None and max_total_tokens < 2:
        raise ValueError(f"max_total_tokens is {max_total_tokens}: no room for prompt and output")
    times_rng, *length_rngs, prompt_rng, calls_rng = _generators(cell_seed, tenant.name)
    if contents_seed is None:
        contents_seed = cell_seed
    elif not isinstance(tenant.prompts, JsonlPrompts | ShareGptPrompts):  # whose order pairs cells
        prompt_rng = _generators(contents_seed, tenant.name)[_PROMPTS]
    adjustments = adjustments if adjustments is not None else Adjustments()
    maker = ContentMaker(vocabulary, prompt_rng, as_text, max_total_tokens, adjustments)
    arrival = tenant.arrival

    if isinstance(arrival, TraceArrivals | SharedTraceArrivals):
        trace = arrival if isinstance(arrival, TraceArrivals) else shared
        assert trace is not None  # noqa: S101  (the scenario's validator)
        names = sharers if trace is shared else (tenant.name,)
        speed = trace.time_scale * load_scale
        part = read_parts(trace, base_dir, names, speed=speed, horizon_s=horizon_s)[tenant.name]
        adjustments.trace_ended, adjustments.left_out = part.ended, part.left_out
        contents = _of_trace(trace, part.due, maker, contents_seed)
        return _planned(tenant.name, replayed(part.due, trace.think_time_s), contents)
    times: Iterator[float | None] = repeat(None)
    if not isinstance(arrival, ClosedLoop):
        times = offsets_s(
            arrival,
            times_rng,
            duration_s=horizon_s,
            load_scale=load_scale,
            window_start_s=window_start_s,
            window_s=window_s,
        )
    prompts, calls = tenant.prompts, tenant.interaction
    if isinstance(prompts, ShareGptPrompts) and calls is not None and calls.history:
        talks = read_conversations(resolve(prompts.path, base_dir))
        counted, sent = tee(maker.of_talks(talks, tenant.output, length_rngs[1]))
        moments = chained(tenant.name, times, calls, map(len, counted))
        return _planned(tenant.name, moments, chain.from_iterable(sent))
    contents = _contents(tenant, maker, length_rngs, deepcopy(calls_rng), base_dir)
    return _planned(tenant.name, _moments(tenant, times, calls_rng), contents)


def _moments(
    tenant: Tenant, times: Iterator[float | None], calls_rng: np.random.Generator
) -> Iterator[Moment]:
    if tenant.interaction is None:
        return zip(times, repeat(None), strict=False)
    counts = call_counts(tenant.interaction, calls_rng)
    return chained(tenant.name, times, tenant.interaction, counts)


def _contents(
    tenant: Tenant,
    maker: ContentMaker,
    length_rngs: Sequence[np.random.Generator],
    calls_rng: np.random.Generator,
    base_dir: Path,
) -> Iterator[Content]:
    prompts, output = tenant.prompts, tenant.output
    if isinstance(prompts, JsonlPrompts | ShareGptPrompts):
        return maker.of_file(_read_prompts(prompts, output, base_dir), output, length_rngs[1])
    assert prompts is not None and output is not None  # noqa: S101  (the tenant's validator)
    if tenant.interaction is not None and tenant.interaction.history:
        counts = call_counts(tenant.interaction, calls_rng)
        return maker.conversations(prompts, output, length_rngs, counts)
    return maker.synthetic(prompts, output, length_rngs)


def _of_trace(
    trace: Trace, due: Sequence[Due], maker: ContentMaker, contents_seed: int
) -> Iterator[Content]:
    scale = trace.token_scale
    block_tokens = max(1, round(trace.block_tokens * scale))
    seed = (contents_seed, _number_of(trace.path))
    for row in (one.row for one in due):
        prompt, output = (max(1, round(n * scale)) for n in (row.prompt_tokens, row.output_tokens))
        blocks = Blocks(row.hash_ids, block_tokens, seed) if row.hash_ids else None
        yield maker.of_lengths(prompt, output, blocks)


def check_scenario(scenario: Scenario, base_dir: Path) -> None:
    """Read all datasets and traces of a scenario, as a preflight.

    Raises:
        SpecError: one is missing or wrong somewhere, with the place.
    """
    for tenant in scenario.tenants:
        check_sources(tenant, base_dir)
    if scenario.trace is not None:
        check_trace(scenario.trace, base_dir, scenario.sharers())


def check_sources(tenant: Tenant, base_dir: Path) -> None:
    """Read the tenant's own dataset or trace to its end. Raises as :func:`check_scenario`."""
    if isinstance(tenant.arrival, TraceArrivals):
        check_trace(tenant.arrival, base_dir)
    elif isinstance(tenant.prompts, JsonlPrompts | ShareGptPrompts):
        _read_prompts(tenant.prompts, tenant.output, base_dir)


def _generators(cell_seed: int, tenant: str) -> list[np.random.Generator]:
    """One stream each for times, prompt lengths, output lengths, prompts, calls of interactions.

    Apart, so that drawing more of one does not shift the others.
    """
    seeds = np.random.SeedSequence([cell_seed, _number_of(tenant)]).spawn(5)
    return [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]


def _number_of(text: str) -> int:
    """A number to seed by, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


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


def _planned(
    tenant: str, moments: Iterator[Moment], contents: Iterator[Content]
) -> Iterator[PlannedRequest]:
    """The first content is made at once: what cannot be made is known before the load starts."""
    first = list(islice(contents, 1))
    return _numbered(tenant, moments, chain(first, contents))


def _numbered(
    tenant: str, moments: Iterator[Moment], contents: Iterator[Content]
) -> Iterator[PlannedRequest]:
    for k, ((time_s, turn), content) in enumerate(zip(moments, contents, strict=False)):
        intended_ns = None if time_s is None else round(time_s * NS_PER_S)
        yield PlannedRequest(f"{tenant}-{k:06d}", tenant, intended_ns, *content, turn)
