"""Traces that are replayed: which format, which part of the file, whose requests.

No trace is shipped. The Azure data: Patel et al., Splitwise, ISCA 2024, CC-BY 4.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import orjson

from fairshare.errors import Location, SpecError
from fairshare.spec.trace import (
    AssignByFile,
    AssignByHashRoot,
    AssignBySession,
    AssignByZipf,
    SharedTrace,
    Trace,
    TraceFormat,
)
from fairshare.units import NS_PER_S
from fairshare.workload import trace_csv, trace_json
from fairshare.workload.assignment import assigner, value_column
from fairshare.workload.files import require_file, resolve, unreadable
from fairshare.workload.trace_rows import Rows, TraceRow, no_requests

_KEPT = 4  # traces that are kept, since each of many tenants asks for its part of the same one
_JSON = {
    TraceFormat.MOONCAKE: trace_json.mooncake_rows,
    TraceFormat.RECORDS: trace_json.record_rows,
    TraceFormat.VTC: trace_json.vtc_rows,
}
_WITH_SESSIONS = {TraceFormat.BURSTGPT, TraceFormat.FAIRSERVE, TraceFormat.CSV, TraceFormat.VTC}


@dataclass(frozen=True, slots=True)
class Due:
    """A row of a trace and when it is due, in seconds since the load's start."""

    time_s: float
    row: TraceRow


@dataclass(frozen=True, slots=True)
class Part:
    """What a trace has for one tenant.

    ``left_out`` counts requests without tokens, which failed when the trace was taken; ``ended``
    says that the trace, or the part of it that is to be played, is shorter than the load.
    """

    due: tuple[Due, ...]
    left_out: int
    ended: bool


def read_trace(
    trace: Trace, base_dir: Path, *, speed: float = 1.0, horizon_s: float = float("inf")
) -> Part:
    """What is due before ``horizon_s`` of a trace that is played ``speed`` times as fast.

    Raises:
        SpecError: with file and line, where the file is not such a trace.
    """
    return read_parts(trace, base_dir, ("",), speed=speed, horizon_s=horizon_s)[""]


def read_parts(
    trace: Trace,
    base_dir: Path,
    tenants: Sequence[str],
    *,
    speed: float = 1.0,
    horizon_s: float = float("inf"),
) -> dict[str, Part]:
    """As :func:`read_trace`, each tenant's part; of a trace that is not shared, the first has all.

    Raises:
        SpecError: as there, or it cannot be told whose a request is.
    """
    files = [_path(trace, base_dir)]
    if isinstance(trace, SharedTrace) and isinstance(trace.assign, AssignByFile):
        files.append(resolve(trace.assign.path, base_dir))
    ask = _Ask(
        json=trace.model_dump_json(exclude={"kind"}),
        shared=isinstance(trace, SharedTrace),
        base_dir=base_dir,
        stamps=tuple(_stamp(path) for path in files),
        tenants=tuple(tenants),
        speed=speed,
        horizon_s=horizon_s,
    )
    return _read(ask)


def check_trace(trace: Trace, base_dir: Path, tenants: Sequence[str] = ("",)) -> None:
    """Read what is to be played of a trace, as a preflight, without keeping it.

    Raises:
        SpecError: as :func:`read_parts`, or a tenant would have nothing to send.
    """
    found = {tenant for _, tenant, _ in _assigned(trace, base_dir, tenants)}
    idle = [tenant for tenant in tenants if tenant not in found]
    if idle and isinstance(trace, SharedTrace) and not isinstance(trace.assign, AssignByZipf):
        others = f" and {len(idle) - 1} others" if idle[1:] else ""
        raise SpecError(
            f"nothing of what is played of the trace is for {idle[0]}{others}",
            where=Location(_path(trace, base_dir)),
            hint="with hash-root, a greater depth tells more prompts apart"
            if isinstance(trace.assign, AssignByHashRoot)
            else "have fewer tenants, play more of it, or assign requests otherwise",
        )


@dataclass(frozen=True, slots=True)
class _Ask:
    """What is asked of a trace; equal asks of unchanged files (``stamps``) have one answer."""

    json: str
    shared: bool
    base_dir: Path
    stamps: tuple[tuple[int, int], ...]
    tenants: tuple[str, ...]
    speed: float
    horizon_s: float


def _stamp(path: Path) -> tuple[int, int]:
    require_file(path, "mapping file")
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=_KEPT)
def _read(ask: _Ask) -> dict[str, Part]:
    trace = (SharedTrace if ask.shared else Trace).model_validate_json(ask.json)
    tenants = ask.tenants
    due: dict[str, list[Due]] = {tenant: [] for tenant in tenants}
    left_out = dict.fromkeys(tenants, 0)
    ended = True
    for offset_ns, tenant, row in _assigned(trace, ask.base_dir, tenants):
        time_s = offset_ns / NS_PER_S / ask.speed
        if time_s >= ask.horizon_s:
            ended = False
            break
        if row.prompt_tokens and row.output_tokens:
            due[tenant].append(Due(time_s, row))
        else:
            left_out[tenant] += 1
    return {tenant: Part(tuple(due[tenant]), left_out[tenant], ended) for tenant in tenants}


def _path(trace: Trace, base_dir: Path) -> Path:
    path = resolve(trace.path, base_dir)
    require_file(path, "trace")
    return path


def _assigned(
    trace: Trace, base_dir: Path, tenants: Sequence[str]
) -> Iterator[tuple[int, str, TraceRow]]:
    """What is to be played: time since the start of that part in ns, whose it is, and the row."""
    path = _path(trace, base_dir)
    tenant_of = assigner(trace, tenants, base_dir) if isinstance(trace, SharedTrace) else None
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            for offset_ns, row in _played(trace, _rows(trace, path, lines), path):
                yield offset_ns, tenant_of(row) if tenant_of else tenants[0], row
    except OSError as error:
        raise unreadable(error, path, "trace") from None


def _played(trace: Trace, rows: Rows, path: Path) -> Iterator[tuple[int, TraceRow]]:
    """The rows from ``start_s`` on, for ``duration_s``."""
    start_ns = round(trace.start_s * NS_PER_S)
    end_ns = None if trace.duration_s is None else start_ns + round(trace.duration_s * NS_PER_S)
    first_ns: int | None = None
    last_ns = 0
    some = False
    for row in rows:
        first_ns = row.time_ns if first_ns is None else first_ns
        since_ns = row.time_ns - first_ns
        if since_ns < last_ns:
            raise SpecError(
                "the time lies before that of the line above",
                where=Location(path, row.line, 1),
                hint="sort the trace by time",
            )
        last_ns = since_ns
        if end_ns is not None and since_ns >= end_ns:
            break
        if since_ns >= start_ns:
            some = True
            yield since_ns - start_ns, row
    if not some:
        raise no_requests(path, f" from {trace.start_s:g} s on" if first_ns is not None else "")


def _rows(trace: Trace, path: Path, lines: Iterable[str]) -> Rows:
    remaining = iter(lines)
    first = next(remaining, "")
    known = trace.format or _recognised(first, path)
    assign = trace.assign if isinstance(trace, SharedTrace) else None
    _check_assignable(trace, known, path)
    value = value_column(assign)
    whole = _again(first, remaining)
    if (read_json := _JSON.get(known)) is not None:
        return read_json(whole, path, value)
    columns = trace.columns or trace_csv.COLUMNS[known]
    named = [columns.session, columns.app, columns.interaction]
    required = named if known is TraceFormat.CSV else []
    if isinstance(assign, AssignBySession):
        required = [*required, columns.session]
    return trace_csv.CsvTrace(
        path,
        columns,
        strict=known is TraceFormat.AZURE,
        required=tuple(name for name in required if name is not None),
        value=value,
    ).rows(whole)


def _again(first: str, remaining: Iterator[str]) -> Iterator[str]:
    yield first
    yield from remaining


def _recognised(first: str, path: Path) -> TraceFormat:
    if first.lstrip().startswith("{"):
        try:
            known = trace_json.format_of(orjson.loads(first))
        except orjson.JSONDecodeError:
            known = None
    else:
        known = trace_csv.format_of(trace_csv.names_in(first))
    if known is None:
        shown = first.strip()[:80]
        raise SpecError(
            "the trace's first line is that of no known format",
            where=Location(path, 1, 1),
            evidence=[shown] if shown.isprintable() and shown else [],
            hint=f"known formats: {', '.join(TraceFormat)}; any other CSV file can be read with "
            "format: csv and columns: {time: ..., prompt_tokens: ..., output_tokens: ...}",
        )
    return known


def _check_assignable(trace: Trace, known: TraceFormat, path: Path) -> None:
    """Raise SpecError if nothing in such a file says what the assignment goes by."""
    if not isinstance(trace, SharedTrace):
        return
    sessions = known in _WITH_SESSIONS
    if trace.columns is not None:
        sessions = trace.columns.session is not None
    lacking = None
    if isinstance(trace.assign, AssignBySession) and not sessions:
        lacking = "sessions"
    if isinstance(trace.assign, AssignByHashRoot) and known is not TraceFormat.MOONCAKE:
        lacking = "hash_ids"
    if lacking:
        raise SpecError(
            f"a trace of format {known} has no {lacking} to assign requests by",
            where=Location(path),
            hint="assign by another kind: column, session, hash-root, zipf or file",
        )
