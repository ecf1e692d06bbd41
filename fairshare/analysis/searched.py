"""What a sweep was looking for, and what it found: tables for people, files for other tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fairshare.analysis.knee_tables import RULE, knee_csv, knee_json, knee_tables
from fairshare.analysis.knees import knees
from fairshare.analysis.model import Analysis
from fairshare.analysis.split_answers import split_answers
from fairshare.analysis.split_tables import RULE as SPLIT_RULE
from fairshare.analysis.split_tables import split_csv, split_json, split_tables
from fairshare.analysis.table import Table
from fairshare.errors import Location, ResultsError, SpecError
from fairshare.results import ResultStore, layout
from fairshare.spec.loading import validate
from fairshare.spec.search import KNEE_RUNS, KneeSearch


@dataclass(frozen=True, slots=True)
class Searched:
    """The answer of a search. ``rule`` says by what it was decided; ``files`` are by name.

    ``cells`` are those whose tables and figures are shown beside it: of a search the two loads that
    enclose each knee, since of all that were tried nobody reads them (None: all).
    """

    title: str
    tables: tuple[Table, ...]
    rule: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    cells: frozenset[str] | None = None

    def shown(self, analysis: Analysis) -> Analysis:
        """The part of the results that tables and figures are of."""
        if self.cells is None:
            return analysis
        kept = tuple(cell for cell in analysis.cells if cell.result.id in self.cells)
        return replace(analysis, cells=kept)


def searched(store: ResultStore, analysis: Analysis) -> Searched | None:
    """The answer that a result folder holds; None where nothing was searched, or found yet.

    Raises:
        ResultsError: the folder is damaged.
    """
    asked = _request(store)
    if (asked.get("search") or {}).get("kind") == "knee":
        return _knees(store, asked)
    answers = split_answers(analysis)
    if not answers:
        return None
    return Searched(
        title="How to split the device",
        tables=tuple(split_tables(answers)),
        rule=SPLIT_RULE,
        files={layout.SHARES_CSV: split_csv(answers), layout.SHARES_JSON: split_json(answers)},
    )


def _knees(store: ResultStore, asked: Mapping[str, Any]) -> Searched | None:
    search = _knee_search(store, asked["search"])
    found = knees(store.cells(), search, int(asked.get("num_runs", KNEE_RUNS)))
    if not found:
        return None
    return Searched(
        title="The highest load that is served",
        tables=tuple(knee_tables(found)),
        rule=RULE,
        cells=frozenset(cell for knee in found for point in knee.ends for cell in point.cells),
        files={layout.KNEE_CSV: knee_csv(found), layout.KNEE_JSON: knee_json(found)},
    )


def _request(store: ResultStore) -> Mapping[str, Any]:
    """What the user asked for; of imported results there is nothing."""
    matrix = store.matrix.get("request", {}).get("matrix")
    asked = matrix if isinstance(matrix, dict) else {}
    return asked if isinstance(asked.get("search") or {}, dict) else {}


def _knee_search(store: ResultStore, raw: Mapping[str, Any]) -> KneeSearch:
    try:
        return validate(dict(raw), KneeSearch)
    except SpecError as error:
        where = Location(store.dir / layout.MATRIX)
        raise ResultsError(f"damaged: the search: {error.message}", where=where) from None
