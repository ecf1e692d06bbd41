"""Traces that are replayed: where they are, how they are read, and whose requests they hold."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fairshare.spec.base import PositiveFloat, PositiveSeconds, Seconds, Spec


class TraceFormat(StrEnum):
    """What a trace's file looks like."""

    AZURE = "azure"  # CSV: TIMESTAMP, ContextTokens, GeneratedTokens
    BURSTGPT = "burstgpt"  # CSV: Timestamp, Request tokens, Response tokens, Session ID, ...
    FAIRSERVE = "fairserve"  # CSV with users, apps and interactions
    MOONCAKE = "mooncake"  # JSONL: timestamp, input_length, output_length, hash_ids
    RECORDS = "records"  # requests.jsonl of a result folder of ours
    VTC = "vtc"  # the result files of the VTC artifact: one JSON object
    CSV = "csv"  # any CSV, its columns named in the scenario


class Columns(Spec):
    """Which columns of a CSV file hold what."""

    time: str
    """Arrival: seconds, or a date and time of day."""
    prompt_tokens: str
    output_tokens: str
    session: str | None = None
    app: str | None = None
    interaction: str | None = None
    """Requests with the same value are calls of one interaction."""


class Trace(Spec):
    """A file of requests and how it is replayed."""

    path: str
    """The file; relative paths are relative to the scenario's file."""
    format: TraceFormat | None = None
    """What the file looks like; without it, its first line tells."""
    columns: Columns | None = None
    """With ``format: csv``: which column holds what."""
    time_scale: PositiveFloat = 1.0
    """2 plays twice as fast."""
    token_scale: PositiveFloat = 1.0
    """0.125 makes prompts and outputs an eighth as long (at least 1 token)."""
    start_s: Seconds = 0.0
    """Begin so long after the trace's first request, in the trace's own time."""
    duration_s: PositiveSeconds | None = None
    """Play so much of it, in the trace's own time; without it, all."""
    block_tokens: int = Field(512, ge=1, le=1_000_000)
    """Prompt tokens that one entry of ``hash_ids`` stands for."""
    think_time_s: Seconds = 0.0
    """From an answer to the next call of its interaction, at least."""

    @model_validator(mode="after")
    def _columns_named(self) -> Self:
        if (self.columns is not None) != (self.format is TraceFormat.CSV):
            raise ValueError("format: csv and columns go together")
        return self


class _Named(Spec):
    others: str | None = None
    """The tenant that gets every value not named; without it, such a value is an error."""


class AssignByColumn(_Named):
    """A column (or, in JSON, a key) says whose request it is."""

    kind: Literal["column"] = "column"
    column: str
    tenants: dict[str, str] | None = None
    """Tenant of each value; without it, values are the tenants' names."""
    dealt: bool = False
    """Values are no names: they are dealt to the tenants in turn, as they appear."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.dealt and (self.tenants is not None or self.others is not None):
            raise ValueError("dealt values have no names: remove dealt, or tenants and others")
        return self


class AssignBySession(Spec):
    """Sessions are dealt to the tenants in turn, as they appear."""

    kind: Literal["session"] = "session"


class AssignByHashRoot(Spec):
    """Requests whose prompts begin alike belong together; they are dealt to the tenants in turn."""

    kind: Literal["hash-root"] = "hash-root"
    depth: int = Field(2, ge=1, le=1000)
    """How many blocks at the beginning must be alike. All of Mooncake's conversations have the same
    first one, a system prompt."""


class AssignByZipf(Spec):
    """Drawn: the k-th tenant gets a part proportional to ``1 / k ** exponent``.

    Sessions and interactions stay whole, and prompts with the same first two blocks together.
    """

    kind: Literal["zipf"] = "zipf"
    exponent: float = Field(1.0, ge=0, le=10, allow_inf_nan=False)
    """0 gives everyone the same part."""
    seed: int = Field(1, ge=0)


class AssignByFile(_Named):
    """A CSV file with the columns ``value`` and ``tenant`` says whose requests they are."""

    kind: Literal["file"] = "file"
    path: str
    """The file; relative paths are relative to the scenario's file."""
    column: str
    """Column of the trace whose values the file names."""


Assign = Annotated[
    AssignByColumn | AssignBySession | AssignByHashRoot | AssignByZipf | AssignByFile,
    Field(discriminator="kind"),
]


class SharedTrace(Trace):
    """One trace that several tenants share."""

    assign: Assign
    """Which request is whose."""
