"""Whose request is it? A public trace knows no tenants: a rule deals its requests to some."""

from __future__ import annotations

import csv
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import accumulate, cycle
from pathlib import Path

import numpy as np

from fairshare.errors import Location, SpecError
from fairshare.spec.trace import (
    Assign,
    AssignByColumn,
    AssignByFile,
    AssignByHashRoot,
    AssignBySession,
    AssignByZipf,
    SharedTrace,
)
from fairshare.workload.files import read, resolve
from fairshare.workload.trace_rows import TraceRow

TenantOf = Callable[[TraceRow], str]


def value_column(assign: Assign | None) -> str | None:
    """The column of the trace that an assignment looks at, besides those that every one has."""
    return assign.column if isinstance(assign, AssignByColumn | AssignByFile) else None


def assigner(trace: SharedTrace, tenants: Sequence[str], base_dir: Path) -> TenantOf:
    """Whose a request is. Asked for the rows of a trace in order, it says the same every time.

    Raises:
        SpecError: a mapping file is wrong; from what is returned: a value is nobody's.
    """
    assign, path = trace.assign, resolve(trace.path, base_dir)
    match assign:
        case AssignByColumn(dealt=True):
            return _dealt(tenants, lambda row: row.value)
        case AssignByColumn():
            names = assign.tenants or {name: name for name in tenants}
            hint = f"tenants: {{...}} gives each value of {assign.column} a tenant, others: NAME "
            hint += "all that are not named, and dealt: true deals the values in turn"
            return _named(names, assign.others, assign.column, path, hint)
        case AssignByFile():
            mapping = resolve(assign.path, base_dir)
            hint = f"add a line for it to {mapping}, or give the rest to a tenant with others: NAME"
            names = _read_mapping(mapping, tenants)
            return _named(names, assign.others, assign.column, path, hint)
        case AssignBySession():
            return _dealt(tenants, lambda row: row.session)
        case AssignByHashRoot(depth=depth):
            return _dealt(tenants, lambda row: row.hash_ids[:depth] or None)
        case AssignByZipf():
            return _drawn(tenants, assign)


def _dealt(tenants: Sequence[str], group_of: Callable[[TraceRow], Hashable | None]) -> TenantOf:
    """Groups in turn as they appear; a request without a group is one of its own."""
    return _by_group(cycle(tenants), group_of)


def _drawn(tenants: Sequence[str], assign: AssignByZipf) -> TenantOf:
    weights = [(rank + 1) ** -assign.exponent for rank in range(len(tenants))]
    edges = list(accumulate(weights))
    rng = np.random.Generator(np.random.PCG64(assign.seed))

    def draws() -> Iterator[str]:
        while True:
            yield tenants[min(bisect_right(edges, rng.random() * edges[-1]), len(tenants) - 1)]

    return _by_group(
        draws(), lambda row: row.session or row.interaction or row.hash_ids[:2] or None
    )


def _by_group(turns: Iterator[str], group_of: Callable[[TraceRow], Hashable | None]) -> TenantOf:
    known: dict[Hashable, str] = {}

    def tenant_of(row: TraceRow) -> str:
        if (group := group_of(row)) is None:
            return next(turns)
        if group not in known:
            known[group] = next(turns)
        return known[group]

    return tenant_of


def _named(
    names: Mapping[str, str], others: str | None, column: str, path: Path, hint: str
) -> TenantOf:
    def tenant_of(row: TraceRow) -> str:
        tenant = names.get(row.value or "", others)
        if tenant is None:
            raise SpecError(
                f"{row.value!r} in {column} is no tenant's: those named are "
                + ", ".join(list(names)[:10]),
                where=Location(path, row.line),
                hint=hint,
            )
        return tenant

    return tenant_of


def _read_mapping(path: Path, tenants: Sequence[str]) -> dict[str, str]:
    lines = csv.reader(read(path, "mapping file").decode("utf-8-sig", "replace").splitlines())
    header = [name.strip() for name in next(lines, [])]
    if header != ["value", "tenant"]:
        raise SpecError(
            f"the first line is {','.join(header)!r}, not 'value,tenant'", where=Location(path, 1)
        )
    names: dict[str, str] = {}
    for number, fields in enumerate(lines, start=2):
        where = Location(path, number)
        if not fields:
            continue
        if len(fields) != 2:
            raise SpecError("the line is not a value and a tenant", where=where)
        value, tenant = (field.strip() for field in fields)
        if tenant not in tenants:
            known = ", ".join(tenants[:10])
            raise SpecError(
                f"no tenant that shares the trace is named {tenant!r} (they are {known})",
                where=where,
            )
        if names.setdefault(value, tenant) != tenant:
            raise SpecError(f"{value!r} is given to two tenants", where=where)
    return names
