"""Which cells of a sweep are meant: ``--only`` and ``--exclude``.

A pattern is either a glob on the names of cells (``two-tenants_mps_*``), or terms that must all
hold, separated by commas (``mode=mps,concurrency=4``); the value of a term is a glob as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fairshare.errors import SpecError
from fairshare.records import CellKey
from fairshare.runner.plan import PlannedCell, RunPlan

_MOST_LISTED = 12
_NONE = "none"  # where a cell has no value, such as the concurrency of an open loop
TERMS: Mapping[str, Callable[[CellKey], object]] = {
    "scenario": lambda key: key.scenario,
    "mode": lambda key: key.mode.value,
    "concurrency": lambda key: key.concurrency,
    "policy": lambda key: key.policy,
    "scheduling": lambda key: None if key.scheduling is None else key.scheduling.value,
    "tenant": lambda key: key.tenant,
    "shares": lambda key: key.shares,
    "load": lambda key: f"{key.load_scale:g}",
    "run": lambda key: key.repetition,
}


@dataclass(frozen=True, slots=True)
class Selection:
    """Cells that match one of ``only`` (all, if there are none) and none of ``exclude``."""

    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def left_out(self, plan: RunPlan) -> set[str]:
        """Ids of the plan's cells that are not meant.

        Raises:
            SpecError: a pattern is none, or no cell matches it; says what there is.
        """
        cells = [*plan.cells, *(each.cell for each in plan.infeasible)]
        only = [_matching(pattern, cells, "--only") for pattern in self.only]
        exclude = [_matching(pattern, cells, "--exclude") for pattern in self.exclude]
        meant = set().union(*only) if only else {cell.id for cell in cells}
        meant -= set().union(*exclude)
        if not meant and cells:
            raise SpecError("--only and --exclude together leave no cell", hint=_there_is(cells))
        return {cell.id for cell in cells} - meant


def _matching(pattern: str, cells: Sequence[PlannedCell], flag: str) -> set[str]:
    wanted = _terms(pattern, flag) if "=" in pattern else None
    found = {
        cell.id
        for cell in cells
        if (
            any(fnmatchcase(name, pattern) for name in (cell.id, cell.key.slug))
            if wanted is None
            else all(fnmatchcase(_value(cell.key, name), glob) for name, glob in wanted.items())
        )
    }
    if not found:
        raise SpecError(f"{flag} {pattern}: no cell matches", hint=_there_is(cells))
    return found


def _terms(pattern: str, flag: str) -> dict[str, str]:
    wanted = {}
    for term in pattern.split(","):
        name, equals, glob = (part.strip() for part in term.partition("="))
        if name not in TERMS or not equals or not glob:
            raise SpecError(
                f"{flag} {pattern}: {term.strip()!r} is not TERM=VALUE",
                hint=f"terms are {', '.join(TERMS)}; several are separated by commas",
            )
        wanted[name] = glob
    return wanted


def _value(key: CellKey, term: str) -> str:
    value = TERMS[term](key)
    return _NONE if value is None else str(value)


def _there_is(cells: Sequence[PlannedCell]) -> str:
    """What can be asked for: every term that parts the cells, then their names."""
    parts = []
    for term in TERMS:
        values = list(dict.fromkeys(_value(cell.key, term) for cell in cells))
        if values != [_NONE]:
            parts.append(f"{term}={'|'.join(values[:_MOST_LISTED])}")
    names = [cell.key.slug for cell in cells[:_MOST_LISTED]]
    more = ", ..." if len(cells) > len(names) else ""
    return f"there is {' '.join(parts)}; cells are called {', '.join(names)}{more}"
