"""Results of other tools as a result folder of ours. They stay marked as measured by others."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from fairshare.errors import Location, ResultsError
from fairshare.records import (
    CellKey,
    CellResult,
    CellStatus,
    Mark,
    Mode,
    Provenance,
    Scheduling,
)
from fairshare.results.exchange_fairserve import read_fairserve
from fairshare.results.exchange_rows import ForeignRun, to_ns
from fairshare.results.exchange_vllm import read_vllm_bench
from fairshare.results.exchange_vtc import read_vtc
from fairshare.results.files import read_bytes
from fairshare.results.store import ResultStore

_LABEL = "logical-imported"
_FROM_THE_ENGINE = "fcfs"
_CLOCK_S = 1.0  # an end that was said in whole seconds is no mistake


class ForeignFormat(StrEnum):
    """Whose results they are."""

    VTC_ARTIFACT = "vtc-artifact"
    VLLM_BENCH = "vllm-bench"
    FAIRSERVE = "fairserve"


_READERS: dict[ForeignFormat, Callable[[Path], Iterator[ForeignRun]]] = {
    ForeignFormat.VTC_ARTIFACT: read_vtc,
    ForeignFormat.VLLM_BENCH: read_vllm_bench,
    ForeignFormat.FAIRSERVE: read_fairserve,
}


@dataclass(frozen=True, slots=True)
class Said:
    """What the user knows of the runs and the files do not tell."""

    scenario: str | None = None
    policies: Sequence[str] = ()
    """One per file, or none."""
    weights: Sequence[float] = ()
    """By the tenants' order; those that are missing weigh 1."""
    window_s: tuple[float, float] | None = None
    kv_tokens: int | None = None
    """Capacity of the server's KV cache, M of VTC's bound."""


@dataclass(frozen=True, slots=True)
class ImportedCell:
    """One run that was brought in."""

    id: str
    mode_label: str
    requests: int
    failures: int
    tenants: tuple[str, ...]


def import_results(
    files: Sequence[Path], form: ForeignFormat, directory: Path, said: Said
) -> list[ImportedCell]:
    """Bring the runs of ``files`` into a new result folder, one cell each.

    Raises:
        ResultsError: a file cannot be read or is not what it should be, with file and line; what
            was said does not fit it; the folder holds something already.
    """
    if said.policies and len(said.policies) != len(files):
        raise ResultsError(
            f"--policy was given {len(said.policies)} times for {len(files)} "
            f"file{'s' if len(files) != 1 else ''}",
            hint="give one --policy per file",
        )
    runs = [(number, run) for number, path in enumerate(files) for run in _runs(path, form)]
    cells = list(_cells(runs, said))
    name = said.scenario or (runs[0][1].scenario if len(runs) == 1 else "imported")
    store = ResultStore.create(directory, {"name": name, "provenance": _provenance(runs, form)})
    return [_write(store, key, run, said) for key, run in cells]


def _runs(path: Path, form: ForeignFormat) -> list[ForeignRun]:
    found = list(_READERS[form](path))
    if not found:
        raise ResultsError("the file is empty", where=Location(path))
    return found


def _cells(
    runs: Iterable[tuple[int, ForeignRun]], said: Said
) -> Iterator[tuple[CellKey, ForeignRun]]:
    """The place of each run; runs of the same scenario and policy are repetitions."""
    seen: Counter[tuple[str, str, int | None]] = Counter()
    for number, run in runs:
        policy = said.policies[number] if said.policies else run.policy
        scenario, place = said.scenario or run.scenario, policy or _FROM_THE_ENGINE
        seen[scenario, place, run.concurrency] += 1
        _check(run, said)
        yield (
            CellKey(
                scenario=scenario,
                mode=Mode.LOGICAL,
                concurrency=run.concurrency,
                repetition=seen[scenario, place, run.concurrency],
                policy=place,
                scheduling=None if policy is None else Scheduling.ENGINE,
            ),
            run,
        )


def _check(run: ForeignRun, said: Said) -> None:
    """Whether what was said can be so; else rates would be over time in which nothing ran."""
    where = Location(run.source, run.line)
    if said.window_s is not None and said.window_s[1] > run.end_s + _CLOCK_S:
        raise ResultsError(
            f"the window ends at {said.window_s[1]:g} s, and the run at {run.end_s:g} s",
            where=where,
        )
    if len(said.weights) > (tenants := len({record.tenant for record in run.records})):
        raise ResultsError(
            f"{len(said.weights)} weights for {tenants} tenant{'s' if tenants != 1 else ''}",
            where=where,
        )


def _write(store: ResultStore, key: CellKey, run: ForeignRun, said: Said) -> ImportedCell:
    tenants = sorted({record.tenant for record in run.records}, key=_natural)
    weights = [*said.weights, *([1.0] * len(tenants))]
    window = said.window_s or run.window_s
    facts = {"file": run.source.name, "line": run.line, "window_s": window, **run.facts}
    cell_id = key.cell_id({"source": _digest(run.source), **facts, "weights": list(said.weights)})
    result = CellResult(
        id=cell_id,
        key=key,
        status=CellStatus.OK,
        label=_LABEL,
        provenance=Provenance.IMPORTED,
        marks=[Mark.FOREIGN],
        notes=[f"imported from {run.source.name}", *run.notes],
        window_ns=(to_ns(window[0]), to_ns(window[1])),
        end_ns=to_ns(run.end_s),
        tenants=[
            {"name": name, "weight": weight, "open_loop": run.open_loop, "slo": {}}
            for name, weight in zip(tenants, weights, strict=False)
        ],
        shares=[{"slot": "imported", "verified": False, "kv_cache_tokens": said.kv_tokens}],
    )
    cell = store.begin_cell(cell_id)
    for record in sorted(run.records, key=lambda record: record.end_ns or 0):
        cell.append(record)
    cell.write_config({"imported": {**facts, "window_s": list(window)}})
    cell.finish(result)
    return ImportedCell(
        id=cell_id,
        mode_label=result.mode_label,
        requests=len(run.records),
        failures=sum(not record.ok for record in run.records),
        tenants=tuple(tenants),
    )


def _natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    """Numbers in a name count as numbers: client 10 comes after client 9."""
    return tuple(
        (part.isdecimal(), int(part) if part.isdecimal() else 0, part)
        for part in re.split(r"(\d{1,18})", name)
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(read_bytes(path)).hexdigest()


def _provenance(runs: Sequence[tuple[int, ForeignRun]], form: ForeignFormat) -> dict[str, Any]:
    """For the report: from which files, and what these say of themselves."""
    return {
        "imported": [
            {
                "format": form.value,
                "file": run.source.name,
                "sha256": _digest(run.source),
                "line": run.line,
                **run.facts,
            }
            for _, run in runs
        ]
    }
