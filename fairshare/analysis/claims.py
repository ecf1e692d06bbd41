"""Tables of figures that somebody states, held against what the device can do.

A table is a CSV file; docs/plausibility.md lists its columns. What a row does not say is not
assumed against it: a row is called impossible only where every reading of it is.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fairshare.analysis.limits import (
    CONTEXT_BYTES,
    MARGIN,
    Hardware,
    Served,
    first_token_s,
    gigabytes,
    known_model,
    over,
    token_s,
    tokens_per_s,
    weights_text,
)
from fairshare.analysis.table import format_number, format_seconds
from fairshare.analysis.violations import Violation
from fairshare.devices.constants import gpu_spec, spec_of_product
from fairshare.errors import Location, SpecError
from fairshare.virtual.models import model_names

_CLOSED_LOOP = 0.03  # by which the three figures of a closed loop may disagree
_TEXTS = frozenset({"name", "device", "model"})
_MOST_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Claim:
    """One row: what was measured on what, as far as it is told. Units are in the names."""

    name: str
    device: str
    model: str
    weight_bits: float = 16
    servers: float = 1
    """On the device at the same time, each with weights of its own."""
    concurrency: float | None = None
    """Requests in flight at once, of all tenants and servers together."""
    requests: float | None = None
    completion_tokens: float | None = None
    """Output tokens of all requests together."""
    duration_s: float | None = None
    output_tokens_per_s: float | None = None
    prompt_tokens: float | None = None
    """Of one request, the fewest; 0 where it is not told."""
    output_tokens: float | None = None
    """Of one request, the fewest."""
    ttft_s: float | None = None
    itl_s: float | None = None
    e2e_s: float | None = None

    @property
    def rate(self) -> float | None:
        """Output tokens per second, stated or by division."""
        if self.output_tokens_per_s is not None:
            return self.output_tokens_per_s
        if self.completion_tokens is None or not self.duration_s:
            return None
        return self.completion_tokens / self.duration_s


@dataclass(frozen=True, slots=True)
class Judged:
    """A row and what was found of it."""

    claim: Claim
    violations: tuple[Violation, ...]
    kept: tuple[str, ...]
    """Limits that the row was held against and keeps."""
    contradictions: tuple[str, ...]
    """Figures that do not fit each other, whatever the device."""


def judge_table(path: Path) -> list[Judged]:
    """Hold every row of a CSV file against its device.

    Raises:
        SpecError: the file cannot be read, or a row names what is not in the catalogue.
    """
    return [_judge(claim, where) for claim, where in _claims(path)]


def _claims(path: Path) -> Iterator[tuple[Claim, Location]]:
    known = [field.name for field in fields(Claim)]
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise SpecError("too large for a table of figures", where=Location(path))
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read: {error}", where=Location(path)) from None
    lines = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    titles = lines.fieldnames or ()
    unknown = [name for name in titles if name not in known]
    if unknown or not _TEXTS.issubset(titles):
        what = f"no column may be called {unknown[0]!r}" if unknown else "columns are missing"
        raise SpecError(
            what, where=Location(path),
            hint=f"name, device and model are needed; columns may be: {', '.join(known)}",
        )  # fmt: skip
    try:
        for number, line in enumerate(lines, start=1):
            yield _claim(line, Location(path), number), Location(path)
    except csv.Error as error:
        raise SpecError(f"not a CSV file: {error}", where=Location(path)) from None


def _claim(line: Mapping[Any, Any], where: Location, number: int) -> Claim:
    found: dict[str, Any] = {}
    for name, value in line.items():
        if not isinstance(name, str):
            raise SpecError(f"row {number} has more values than columns", where=where)
        text = (value or "").strip()
        if name in _TEXTS:
            found[name] = text
        elif text:
            found[name] = _number(text, f"{name} of row {number}", where)
    if found.get("servers", 1) < 1 or found.get("weight_bits", 16) <= 0:
        raise SpecError(f"row {number}: there is at least one server, of some bits", where=where)
    return Claim(**found)


def _number(text: str, what: str, where: Location) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e18:
        raise SpecError(
            f"{what} is {text!r}: a number of 0 or more is needed, with a point and no unit",
            where=where,
        )
    return value


def _judge(claim: Claim, where: Location) -> Judged:
    spec = spec_of_product(claim.device)
    hardware = Hardware.of(spec or gpu_spec(claim.device))
    model = known_model(claim.model)
    if model is None:
        raise SpecError(
            f"the size of the model {claim.model!r} is not known", where=where,
            hint=f"known: {', '.join(model_names())}, by these names or those of their makers",
        )  # fmt: skip
    served = Served(model, claim.weight_bits)
    found = list(_checks(claim, served, hardware))
    return Judged(
        claim,
        violations=tuple(each for each in found if isinstance(each, Violation)),
        kept=tuple(each for each in found if isinstance(each, str)),
        contradictions=tuple(_contradictions(claim)),
    )


def _checks(claim: Claim, served: Served, hardware: Hardware) -> Iterator[Violation | str]:
    yield _memory(claim, served, hardware)
    if claim.rate is not None and claim.concurrency:
        yield _throughput(claim, served, hardware, claim.rate, claim.concurrency)
        yield _compute(claim, served, hardware, claim.rate)
    prompt, because = claim.prompt_tokens or 0.0, weights_text(served, hardware)
    first = float(first_token_s(served, hardware, prompt))
    gap = float(token_s(served, hardware, prompt))
    if claim.ttft_s is not None:
        yield _least("first token", claim.ttft_s, first, f"{because}, prompt of {prompt:,.0f}")
    if claim.itl_s is not None:
        yield _least("time per token", claim.itl_s, gap, because)
    if claim.e2e_s is not None and claim.output_tokens:
        count = claim.output_tokens
        between = float(token_s(served, hardware, prompt + count / 2))
        text = f"{format_seconds(first)} to the first token, {format_seconds(between)} to each next"
        yield _least("whole request", claim.e2e_s, first + (count - 1) * between, text)


def _memory(claim: Claim, served: Served, hardware: Hardware) -> Violation | str:
    needed = claim.servers * (served.weight_bytes + CONTEXT_BYTES)
    weights = claim.servers * served.weight_bytes
    text = (
        f"{claim.servers:g} x {gigabytes(served.weight_bytes)} = {gigabytes(weights)} of weights "
        f"alone, and {gigabytes(hardware.memory_bytes)} of memory"
    )
    if (factor := needed / hardware.memory_bytes) > MARGIN:
        no_share = "; processes do not share weights" if claim.servers > 1 else ""
        return Violation("memory", None, text + no_share, factor)
    return f"memory: {text}"


def _throughput(
    claim: Claim, served: Served, hardware: Hardware, rate: float, sequences: float
) -> Violation | str:
    context = claim.prompt_tokens or 0.0
    room = hardware.memory_bytes / claim.servers - served.weight_bytes
    together = max(1.0, sequences / claim.servers)  # of each server, which reads its own weights
    if context and room > 0:
        together = max(1.0, min(together, room / (served.cache_bytes_per_token * context)))
    most = tokens_per_s(served, hardware, together, context)
    split = f" in {claim.servers:g} servers" if claim.servers > 1 else ""
    text = (
        f"{format_number(rate)} output tok/s; {weights_text(served, hardware)}, so "
        f"{together * claim.servers:g} at once{split} get {format_number(most)} tok/s at most"
    )
    if (factor := rate / most) <= MARGIN:
        return f"throughput: {text}"
    needed = hardware.bandwidth_bytes_s * factor / 1e9
    longest = ""
    if claim.completion_tokens is not None and claim.output_tokens_per_s is None:
        least = claim.completion_tokens / most
        longest = f"; {claim.completion_tokens:,.0f} tokens take {format_number(least)} s at least"
    text += f" ({over(factor)}; it would take {needed:,.0f} GB/s{longest})"
    return Violation("throughput", None, text, factor)


def _compute(claim: Claim, served: Served, hardware: Hardware, rate: float) -> Violation | str:
    flops = served.token_flops(rate, rate * (claim.prompt_tokens or 0.0))
    if claim.requests and claim.duration_s and claim.prompt_tokens:
        prompts = claim.requests / claim.duration_s
        flops += prompts * float(served.prompt_flops(claim.prompt_tokens))
    text = f"{flops / 1e12:,.1f} of {hardware.flops / 1e12:,.0f} TFLOP/s"
    if (factor := flops / hardware.flops) > MARGIN:
        return Violation("compute", None, f"{text} ({over(factor)})", factor)
    return f"compute: {text}"


def _least(check: str, stated_s: float, least_s: float, because: str) -> Violation | str:
    text = f"{format_seconds(stated_s)}, {format_seconds(least_s)} at least ({because})"
    if least_s > stated_s * MARGIN:
        factor = least_s / stated_s if stated_s else math.inf
        return Violation(check, None, text, factor)
    return f"{check}: {text}"


def _contradictions(claim: Claim) -> Iterator[str]:
    """A closed loop's rate, first token and gaps follow from each other."""
    told = (claim.rate, claim.concurrency, claim.output_tokens, claim.ttft_s, claim.itl_s)
    if any(value is None for value in told):
        return
    rate, concurrency, count, ttft, itl = (float(value or 0) for value in told)
    if not (took := ttft + (count - 1) * itl) or not rate:
        return
    follows = concurrency * count / took
    if abs(follows / rate - 1) > _CLOSED_LOOP:
        yield (
            f"{concurrency:g} x {count:g} tokens / ({format_seconds(ttft)} + {count - 1:g} x "
            f"{format_seconds(itl)}) = {format_number(follows)} tok/s, and "
            f"{format_number(rate)} are stated ({(follows / rate - 1) * 100:+.1f} %): a heavy "
            "tail, a first token of two kinds, another load, or an error"
        )
