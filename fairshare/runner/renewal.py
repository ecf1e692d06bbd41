"""A result folder that is gone on with: what of it counts, and what is measured (again).

A cell counts if its fingerprint is the one that it would have now: the hash of its resolved
scenario with the files it names, launcher, plan, policy, models, engine version, seed and format
version. Whatever is measured again is put aside first, so that a run which is cut off can be
resumed without saying again what was to be measured again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fairshare.errors import ResultsError
from fairshare.records import CellStatus
from fairshare.results import layout
from fairshare.results.files import read_bytes
from fairshare.results.store import ResultStore, StoredCell
from fairshare.runner.changes import changes, told
from fairshare.runner.plan import PlannedCell, RunPlan, plain
from fairshare.runner.selection import Selection

_ENDED = (CellStatus.OK, CellStatus.FAILED)
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Choice:
    """Which cells are meant, and which of those that a folder has already are measured again.

    ``force``: all of them; ``retry_failed``: those that failed.
    """

    selection: Selection = field(default_factory=Selection)
    retry_failed: bool = False
    force: bool = False


@dataclass(slots=True)
class Renewal:
    """What of a folder is kept (ids of cells), and which folders of cells are put aside.

    ``damaged`` are those of them, by name, that only look complete, and what is wrong with each.
    """

    kept: set[str] = field(default_factory=set)
    kept_failed: list[str] = field(default_factory=list)
    aside: list[Path] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)


def renewal(
    store: ResultStore, plan: RunPlan, choice: Choice, request: Mapping[str, Any]
) -> Renewal:
    """Compare a folder with what would be run into it now; changes nothing.

    Raises:
        ResultsError: it holds measured cells that are defined otherwise now (says what changed),
            or that this command would not run.
    """
    cells = [*plan.cells, *(each.cell for each in plan.infeasible)]
    by_id = {cell.id: cell for cell in cells}
    by_key = {cell.key: cell for cell in cells}
    left_out = choice.selection.left_out(plan)
    there, damaged = store.examined()
    found = Renewal(
        aside=[*_strange_partials(store, by_id), *damaged],
        damaged={folder.name: reason for folder, reason in damaged.items()},
    )
    changed: list[tuple[StoredCell, PlannedCell]] = []
    strangers: list[str] = []
    for stored in there:
        if not stored.complete:
            continue
        result = stored.result
        now = by_key.get(result.key)
        again = now is not None and now.id not in left_out and _again(stored, choice)
        if now is None:
            if result.status is CellStatus.OK:
                strangers.append(result.id)
        elif now.id == result.id and now.fingerprint == result.fingerprint:
            if again:
                found.aside.append(stored.dir)
            elif result.status in _ENDED:
                found.kept.add(result.id)
                if result.status is CellStatus.FAILED:
                    found.kept_failed.append(result.id)
        elif again or result.status is not CellStatus.OK:
            found.aside.append(stored.dir)
        else:
            changed.append((stored, now))
    if changed:
        raise _changed(store, changed, len(found.kept))
    if strangers:
        raise _strangers(store, strangers, request)
    return found


def renew(store: ResultStore, found: Renewal) -> None:
    """Put aside what is measured again.

    Raises:
        ResultsError: a folder cannot be moved.
    """
    for folder in found.aside:
        store.supersede(folder)


def _again(stored: StoredCell, choice: Choice) -> bool:
    return choice.force or (choice.retry_failed and stored.result.status is CellStatus.FAILED)


def _strange_partials(store: ResultStore, by_id: Mapping[str, PlannedCell]) -> list[Path]:
    """What killed runs began and nobody would complete any more."""
    ours = {layout.cell_folder(id_) + layout.PARTIAL for id_ in by_id}
    return [folder for folder in store.unfinished() if folder.name not in ours]


def _changed(
    store: ResultStore, changed: list[tuple[StoredCell, PlannedCell]], kept: int
) -> ResultsError:
    differences = [changes(_definition(old.dir), plain(new.definition)) for old, new in changed]
    same = f" ({kept} are as they were)" if kept else ""
    return ResultsError(
        f"{store.dir} holds {_cells(len(changed))} whose definition has changed{same}",
        evidence=told(differences),
        hint="--force measures them anew, with --only just some (what was measured is kept in "
        f"{layout.SUPERSEDED}/); or undo the change, or choose another --output-dir",
    )


def _strangers(
    store: ResultStore, strangers: list[str], request: Mapping[str, Any]
) -> ResultsError:
    named = ", ".join(sorted(strangers)[:_MOST_NAMED])
    more = ", ..." if len(strangers) > _MOST_NAMED else ""
    asked = changes(store.matrix.get("request", {}), plain(request))
    return ResultsError(
        f"{store.dir} holds {_cells(len(strangers))} that this command would not run: "
        f"{named}{more}",
        evidence=[f"{path}: {before} -> {after}" for path, before, after in asked],
        hint="give the same scenarios, flags and versions (--only runs a part of them), or choose "
        "another --output-dir",
    )


def _cells(count: int) -> str:
    return f"{count} measured cell{'s' * (count != 1)}"


def _definition(folder: Path) -> Any:
    path = folder / layout.CONFIG
    try:
        return yaml.load(read_bytes(path), Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ResultsError):
        return {}
