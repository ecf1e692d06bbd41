"""What a run leaves behind, value by value: one request, one cell, and what identifies them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

import orjson

FORMAT_VERSION = 1
_SLUG_POLICY = 60  # characters of a policy and its options in a cell's name


class Mode(StrEnum):
    """How tenants share the device."""

    EXCLUSIVE = "exclusive"  # each tenant alone on the whole device, in turn: the baseline
    LOGICAL = "logical"  # one server for all tenants
    TIMESLICE = "timeslice"  # one server per tenant, the driver's (or kernel's) time slices
    MPS = "mps"  # one server per tenant, concurrent, with capped shares
    MIG = "mig"  # one server per tenant on its own partition


class Scheduling(StrEnum):
    """Where a policy decides who is served next."""

    GATEWAY = "gateway"  # before the server: fairshare's proxy holds the queue
    ENGINE = "engine"  # in the engine's own scheduler
    PRIORITY = "priority"  # the proxy sends ranks, and the engine orders by them


class TransportKind(StrEnum):
    """What carries requests to servers."""

    STREAM = "stream"  # sockets with a reader of our own: the more exact one (benchmarks/README.md)
    AIOHTTP = "aiohttp"  # a second opinion, by another implementation of HTTP
    IN_PROCESS = "in-process"  # no HTTP: a socket of the engine's own process, and its own clock


class Provenance(StrEnum):
    """Where a figure comes from. It travels with every figure."""

    MEASURED = "measured"
    MEASURED_ON_CPU = "measured on cpu"
    MEASURED_UNVERIFIED = "measured, sharing unverified"  # servers that somebody else runs
    EMULATED = "emulated"
    SIMULATED = "simulated"
    IMPORTED = "imported"  # from results that other tools wrote; see `fairshare import`


class Mark(StrEnum):
    """A reservation that travels with a figure."""

    WEAK_EVIDENCE = "weak evidence"
    CLIENT_LIMITED = "client-limited"
    CLIENT_SHARED = "client-shared"
    CONTAMINATED = "contaminated"
    TIME_DILATED = "time-dilated"  # this machine was too slow for the simulation
    CLOCKS_SLOWED = "clocks slowed"  # heat, power or the hardware held them down in the window
    UNVALIDATED = "unvalidated"
    IMPOSSIBLE = "impossible"  # beyond what the device can do; see docs/plausibility.md
    FOREIGN = "measured by others"


class Phase(StrEnum):
    """When a request was meant to be sent, relative to the measured window."""

    WARMUP = "warmup"
    MEASURE = "measure"
    DRAIN = "drain"


class ErrorKind(StrEnum):
    """Why a request failed. The list is closed; the text beside it tells more."""

    CONNECT = "connect"  # no connection could be made
    TIMEOUT = "timeout"  # the whole request took longer than its limit
    STALLED = "stalled"  # the stream was silent for longer than its limit
    DISCONNECT = "disconnect"  # the connection broke before the answer was complete
    THROTTLED = "throttled"  # refused for now (429): a quota is used up, or a queue is full
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    BAD_RESPONSE = "bad_response"  # not the protocol: garbage, wrong type, a line without end
    SERVER_ERROR = "server_error"  # an error inside a 200 answer
    ABORTED = "aborted"  # finish reason "abort"
    INCOMPLETE = "incomplete"  # ended without a finish reason of stop or length
    NO_USAGE = "no_usage"  # ended well, but the server never said how many tokens
    UNFINISHED = "unfinished"  # still running when the drain ended; cancelled by us
    CLIENT = "client"  # our own fault


@dataclass(slots=True)
class RequestRecord:
    """One request, whatever became of it: a line of ``requests.jsonl``.

    Times are monotonic nanoseconds since the cell's start; what did not happen is None.
    ``chunk_ns[i]`` is when chunk ``i`` that carries tokens arrived, ``chunk_tokens[i]`` how many
    tokens it carries (exact where the server gives token ids or continuous usage, else one).
    ``call`` (from 1) of ``calls`` says which call of an interaction it is. ``empty_chunks`` of a
    stream carried no token (None in folders of before they were counted); ``retry_after_s`` is how
    long a server that refused wanted not to be asked.
    """

    id: str
    tenant: str
    server: str
    phase: Phase
    intended_ns: int
    sent_ns: int | None = None
    headers_ns: int | None = None
    first_token_ns: int | None = None
    chunk_ns: list[int] = field(default_factory=list)
    chunk_tokens: list[int] = field(default_factory=list)
    end_ns: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
    status: int | None = None
    error: ErrorKind | None = None
    error_text: str | None = None
    round: int | None = None
    app: str | None = None
    interaction: str | None = None
    call: int | None = None
    calls: int | None = None
    empty_chunks: int | None = None
    retry_after_s: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the request was answered completely and correctly."""
        return self.error is None

    def to_json(self) -> bytes:
        """One line of ``requests.jsonl``, without the line end."""
        return orjson.dumps(self)

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Self:
        """The record that :meth:`to_json` wrote.

        Raises:
            ValueError: an unknown field, a missing one, or an unknown phase or error kind.
        """
        if unknown := raw.keys() - cls.__dataclass_fields__.keys():
            raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
        try:
            record = cls(**raw)
        except TypeError as error:
            raise ValueError(str(error)) from None
        record.phase = Phase(record.phase)
        record.error = None if record.error is None else ErrorKind(record.error)
        return record


def fingerprint(definition: Any) -> str:
    """A hash of everything that defines something: JSON with sorted keys, SHA-256, hex."""
    return hashlib.sha256(orjson.dumps(definition, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class CellKey:
    """One point of the matrix. ``tenant`` is set where one tenant runs alone (exclusive).

    ``policy`` has its options behind its name; ``scheduling`` is where it decides (None: nowhere,
    the engine serves in its own order). ``shares`` is how the device is split, where a sweep tries
    several ways (``70:30``, or the profiles).
    """

    scenario: str
    mode: Mode
    concurrency: int | None  # None: the scenario's own numbers
    repetition: int = 1
    policy: str = "fcfs"
    tenant: str | None = None
    load_scale: float = 1.0
    scheduling: Scheduling | None = None
    shares: str | None = None

    @property
    def slug(self) -> str:
        """A readable name: ``two-tenants_mps_c4_r1``.

        Unique within a matrix but for policies that differ only far behind in their options.
        """
        parts = [self.scenario, self.mode.value]
        if self.tenant:
            parts.append(self.tenant)
        if self.scheduling is not None:
            parts += [_in_a_slug(self.policy), self.scheduling.value]
        if self.shares is not None:
            parts.append(_in_a_slug(self.shares))
        if self.concurrency is not None:
            parts.append(f"c{self.concurrency}")
        if self.load_scale != 1.0:
            parts.append(f"x{self.load_scale:g}")
        return "_".join([*parts, f"r{self.repetition}"])

    def definition(self) -> dict[str, Any]:
        """What of the key defines a cell: ``shares`` only where a sweep varies them."""
        given = asdict(self)
        return (
            given if self.shares is not None else {k: v for k, v in given.items() if k != "shares"}
        )

    def cell_id(self, definition: Any) -> str:
        """The folder name: the slug and eight digits of the definition's fingerprint."""
        return f"{self.slug}-{fingerprint(definition)[:8]}"

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Self:
        """The key that ``cell.json`` holds."""
        place = raw.get("scheduling")
        scheduling = None if place is None else Scheduling(place)
        return cls(**{**raw, "mode": Mode(raw["mode"]), "scheduling": scheduling})


def mode_label(label: str, policy: str, scheduling: Scheduling | None) -> str:
    """A mode as shown to people, with the policy and its place where one decides."""
    return label if scheduling is None else f"{label} + {policy} ({scheduling.value})"


def _in_a_slug(policy: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", policy)[:_SLUG_POLICY].strip("-")


class CellStatus(StrEnum):
    """What became of a cell."""

    OK = "ok"
    FAILED = "failed"
    INFEASIBLE = "infeasible"
    INTERRUPTED = "interrupted"


@dataclass(slots=True)
class CellResult:
    """What ``cell.json`` says: what was run, how it went, and what the figures may be called.

    ``window_ns`` is [start, end) of the measured window on the clock of the records;
    ``label`` is the mode as shown to people (``mps-cpu``, ``mig-emulated``); ``shares`` says per
    server what was planned and what was seen from inside; ``client`` is the load generator's
    account of itself; ``notes`` are sentences that belong beside every figure of the cell.
    ``machine`` is where it was measured, as ``matrix.json`` describes it, if not where the command
    was given.
    """

    id: str
    key: CellKey
    status: CellStatus
    label: str
    provenance: Provenance
    marks: list[Mark] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reason: str | None = None
    fingerprint: str = ""
    deployment: str = ""
    started_at: float | None = None  # wall clock, seconds since the epoch
    window_ns: tuple[int, int] | None = None
    end_ns: int | None = None
    tenants: list[dict[str, Any]] = field(default_factory=list)  # name, weight, slo, slot
    shares: list[dict[str, Any]] = field(default_factory=list)
    client: dict[str, Any] = field(default_factory=dict)
    time_dilation: dict[str, float] | None = None  # of simulated servers: real over simulated time
    machine: str | None = None
    format_version: int = FORMAT_VERSION

    @property
    def mode_label(self) -> str:
        """The mode as shown to people, with the policy where one decides."""
        return mode_label(self.split_label, self.key.policy, self.key.scheduling)

    @property
    def split_label(self) -> str:
        """The mode with the split of the device, where a sweep tries several."""
        return f"{self.label} {self.key.shares}" if self.key.shares else self.label

    def to_json(self) -> bytes:
        """The contents of ``cell.json``."""
        return orjson.dumps(self, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> Self:
        """The result that :meth:`to_json` wrote.

        Raises:
            ValueError: another format version, an unknown field or value.
        """
        if raw.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"format version {raw.get('format_version')!r}; this program reads {FORMAT_VERSION}"
            )
        if unknown := raw.keys() - cls.__dataclass_fields__.keys():
            raise ValueError(f"unknown field {sorted(unknown)[0]!r}")
        result = cls(**raw)
        result.key = CellKey.from_mapping(raw["key"])
        result.status = CellStatus(raw["status"])
        result.provenance = Provenance(raw["provenance"])
        result.marks = [Mark(mark) for mark in raw.get("marks", ())]
        result.window_ns = tuple(raw["window_ns"]) if raw.get("window_ns") else None
        return result
