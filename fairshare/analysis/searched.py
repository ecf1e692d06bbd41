"""What a sweep was looking for, and what it found: tables for people, files for other tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairshare.analysis.knee_tables import RULE, knee_csv, knee_json, knee_tables
from fairshare.analysis.knees import knees
from fairshare.analysis.table import Table
from fairshare.errors import Location, ResultsError, SpecError
from fairshare.results import ResultStore, layout
from fairshare.spec.loading import validate
from fairshare.spec.search import KNEE_RUNS, KneeSearch


@dataclass(frozen=True, slots=True)
class Searched:
    """The answer of a search. ``rule`` says by what it was decided; ``files`` are by name."""

    title: str
    tables: tuple[Table, ...]
    rule: str
    files: Mapping[str, bytes] = field(default_factory=dict)


def searched(store: ResultStore) -> Searched | None:
    """The answer that a result folder holds; None where nothing was searched, or found yet.

    Raises:
        ResultsError: the folder is damaged.
    """
    asked = _request(store)
    if asked.get("search", {}).get("kind") != "knee":
        return None
    search = _knee_search(store, asked["search"])
    found = knees(store.cells(), search, int(asked.get("num_runs", KNEE_RUNS)))
    if not found:
        return None
    return Searched(
        title="The highest load that is served",
        tables=tuple(knee_tables(found)),
        rule=RULE,
        files={layout.KNEE_CSV: knee_csv(found), layout.KNEE_JSON: knee_json(found)},
    )


def _request(store: ResultStore) -> Mapping[str, Any]:
    """What the user asked for; of imported results there is nothing."""
    matrix = store.matrix.get("request", {}).get("matrix")
    asked = matrix if isinstance(matrix, dict) else {}
    return asked if isinstance(asked.get("search", {}), dict) else {}


def _knee_search(store: ResultStore, raw: Mapping[str, Any]) -> KneeSearch:
    try:
        return validate(dict(raw), KneeSearch)
    except SpecError as error:
        where = Location(store.dir / layout.MATRIX)
        raise ResultsError(f"damaged: the search: {error.message}", where=where) from None
