"""The requests of one cell as columns: what every metric is computed from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairshare.records import ErrorKind, Phase, RequestRecord
from fairshare.results.reading import Columns, by_field
from fairshare.units import NS_PER_S

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

ERROR_KINDS = tuple(ErrorKind)
_PHASES = {phase: number for number, phase in enumerate(Phase)}
_MEASURE = _PHASES[Phase.MEASURE]
_ERRORS: dict[ErrorKind | None, int] = {
    None: -1,
    **{kind: number for number, kind in enumerate(ERROR_KINDS)},
}


@dataclass(frozen=True, slots=True)
class Requests:
    """Columns of length n, one entry per request; times in seconds since the cell's start.

    What did not happen is NaN. ``error`` is an index into ``ERROR_KINDS``, -1 for a success.
    The chunks of request ``i`` are ``chunk_s[chunk_from[i]:chunk_from[i + 1]]``;
    ``chunk_tokens`` adds up to the server's own count where it gave one. Requests with equal
    ``interaction`` are calls of the same one; -1 is none.
    """

    tenants: tuple[str, ...]
    apps: tuple[str, ...]
    tenant: Ints  # index into tenants
    app: Ints  # index into apps, -1 without one
    interaction: Ints
    call: Ints  # from 1; 0 outside of interactions
    calls: Ints
    round: Ints  # from 0; -1 where the window has none
    phase: Ints
    error: Ints
    intended_s: Floats
    sent_s: Floats
    first_token_s: Floats
    end_s: Floats
    prompt_tokens: Floats
    cached_tokens: Floats
    output_tokens: Floats
    empty_chunks: Floats
    counted_tokens: Floats  # as they arrived; chunk_tokens may have been put right
    chunk_from: Ints  # length n + 1
    chunk_s: Floats
    chunk_tokens: Floats

    def __len__(self) -> int:
        return len(self.tenant)

    @property
    def ok(self) -> Mask:
        """Whether each request was answered completely."""
        return np.equal(self.error, -1)

    @property
    def measured(self) -> Mask:
        """Whether each request belongs to the measured window by its intended time."""
        return np.equal(self.phase, _MEASURE)

    @property
    def chunk_counts(self) -> Ints:
        """Number of chunks with tokens of each request."""
        return np.diff(self.chunk_from)

    def of_tenant(self, name: str) -> Requests:
        """The requests of one tenant."""
        return self.select(np.equal(self.tenant, self.tenants.index(name)))

    def select(self, mask: Mask) -> Requests:
        """The requests at which ``mask`` is true, in the same order."""
        counts = self.chunk_counts
        in_chunks = np.repeat(mask, counts)
        columns = {
            field.name: getattr(self, field.name)[mask]
            for field in fields(self)
            if field.name not in _NOT_PER_REQUEST
        }
        return replace(
            self,
            **columns,
            chunk_from=np.concatenate(([0], np.cumsum(counts[mask]))),
            chunk_s=self.chunk_s[in_chunks],
            chunk_tokens=self.chunk_tokens[in_chunks],
        )


def columns(records: Iterable[RequestRecord], tenants: Sequence[str] = ()) -> Requests:
    """The columns of ``records``; ``tenants`` fixes the order and may name silent ones."""
    return gathered([by_field(records)], tenants)


def gathered(parts: Iterable[Columns], tenants: Sequence[str] = ()) -> Requests:
    """The columns of requests that come many at a time, as :meth:`StoredCell.columns` gives them.

    ``tenants`` fixes the order and may name silent ones.
    """
    names = {name: number for number, name in enumerate(tenants)}
    apps: dict[str, int] = {}
    interactions: dict[tuple[str, str], int] = {}
    found: dict[str, list[Floats | Ints]] = {}
    for part in chain([by_field(())], parts):  # so that no request at all has its columns too
        for name, column in _arrays(part, names, apps, interactions).items():
            found.setdefault(name, []).append(column)
    made: dict[str, Any] = {name: np.concatenate(each) for name, each in found.items()}
    tokens = made.pop("chunk_tokens")
    chunk_from = np.concatenate(([0], np.cumsum(made.pop("chunks"))))
    counted = _counted(tokens, chunk_from)
    return Requests(
        tenants=tuple(names),
        apps=tuple(apps),
        chunk_from=chunk_from,
        chunk_tokens=_exact_tokens(tokens, counted, chunk_from, made["output_tokens"]),
        counted_tokens=counted,
        **made,
    )


def _arrays(
    part: Columns,
    names: dict[str, int],
    apps: dict[str, int],
    interactions: dict[tuple[str, str], int],
) -> dict[str, Floats | Ints]:
    """The numbers of some requests; new names are added to ``names`` and the others."""
    places = zip(part["tenant"], part["interaction"], strict=True)
    whole = {
        "tenant": [names.setdefault(name, len(names)) for name in part["tenant"]],
        "phase": [_PHASES[phase] for phase in part["phase"]],
        "error": [_ERRORS[error] for error in part["error"]],
        "app": [apps.setdefault(app, len(apps)) if app else -1 for app in part["app"]],
        "interaction": [
            interactions.setdefault(place, len(interactions)) if place[1] else -1
            for place in places
        ],
        "call": [call or 0 for call in part["call"]],
        "calls": [calls or 0 for calls in part["calls"]],
        "round": [-1 if number is None else number for number in part["round"]],
        "chunks": [len(chunks) for chunks in part["chunk_ns"]],
    }
    made: dict[str, Floats | Ints] = {n: np.array(column, np.int64) for n, column in whole.items()}
    for name, source in _SOURCES.items():
        numbers = np.array(part[source], np.float64)  # None becomes NaN
        made[name] = numbers / NS_PER_S if name.endswith("_s") else numbers
    count = int(made["chunks"].sum())
    flat = (chain.from_iterable(part[name]) for name in ("chunk_ns", "chunk_tokens"))
    arrived, tokens = (np.fromiter(numbers, np.int64, count) for numbers in flat)
    return made | {"chunk_s": arrived / NS_PER_S, "chunk_tokens": tokens.astype(np.float64)}


_NOT_PER_REQUEST = frozenset({"tenants", "apps", "chunk_from", "chunk_s", "chunk_tokens"})
_SOURCES = {
    "intended_s": "intended_ns",
    "sent_s": "sent_ns",
    "first_token_s": "first_token_ns",
    "end_s": "end_ns",
    "prompt_tokens": "prompt_tokens",
    "cached_tokens": "cached_tokens",
    "output_tokens": "output_tokens",
    "empty_chunks": "empty_chunks",
}


def _counted(chunk_tokens: Floats, chunk_from: Ints) -> Floats:
    """Tokens of each request's chunks together."""
    seen = np.concatenate(([0.0], np.cumsum(chunk_tokens)))
    counted: Floats = seen[chunk_from[1:]] - seen[chunk_from[:-1]]
    return counted


def _exact_tokens(
    chunk_tokens: Floats, counted: Floats, chunk_from: Ints, output_tokens: Floats
) -> Floats:
    """Tokens per chunk such that each request's chunks add up to what the server counted.

    Where a server gives only the total, each chunk was recorded as one token; the total is
    spread over the chunks in proportion. Without a total the recorded numbers stand.
    """
    counts = np.diff(chunk_from)
    known = ~np.isnan(output_tokens) & (counted > 0) & (counted != output_tokens)
    scale = np.ones(len(counts))
    scale[known] = output_tokens[known] / counted[known]
    return chunk_tokens * np.repeat(scale, counts)
