"""A search for the knee over planned cells, on servers that answer by rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.analysis.knees import knees
from fairshare.errors import SpecError
from fairshare.records import (
    CellResult,
    CellStatus,
    ErrorKind,
    Phase,
    Provenance,
    RequestRecord,
)
from fairshare.results.store import ResultStore, StoredCell
from fairshare.runner.plan import PlannedCell, RunPlan, make_plan
from fairshare.runner.predict import predict
from fairshare.runner.search import KneeHunt, check_search, knee_hunt
from fairshare.runner.settings import Flags, Settings, settle
from fairshare.spec.matrix import Matrix
from fairshare.spec.search import KneeSearch

S = 1_000_000_000
REQUESTS = 50  # per window
TENANT = """\
  - name: {name}
    arrival: {arrival}
    prompts: {{kind: synthetic, tokens: {{kind: fixed, tokens: 8}}}}
    output: {{kind: fixed, tokens: 8}}
    slo: {slo}
"""
POISSON, CLOSED = "{kind: poisson, rate_per_s: 2}", "{kind: closed}"
LIMIT = {"logical": 3.0, "mps": 1.2, "exclusive": 3.0}  # the highest load that each mode serves


def _settle(tmp_path: Path, *tenants: tuple[str, str, str], **fields: object) -> Settings:
    path = tmp_path / "s.yaml"
    told = "".join(TENANT.format(name=n, arrival=a, slo=s) for n, a, s in tenants)
    path.write_text(f"name: s\ntiming: {{window_s: 5}}\ntenants:\n{told}")
    matrix = {"name": "m", "scenarios": [str(path)], "search": {"kind": "knee"}, **fields}
    return settle(Matrix.model_validate(matrix), Flags(device="virtual:h200"))


def _measure(store: ResultStore, cell: PlannedCell, *, broken: bool = False) -> StoredCell:
    """File the cell as a server would have it that serves up to its mode's limit."""
    served = (cell.key.concurrency or cell.key.load_scale) <= LIMIT[cell.key.mode.value]
    writer = store.begin_cell(cell.id)
    for tenant in cell.tenants:
        for number in range(REQUESTS):
            error = ErrorKind.DISCONNECT if broken else None if served else ErrorKind.UNFINISHED
            writer.append(
                RequestRecord(
                    id=f"{tenant.name}-{number}",
                    tenant=tenant.name,
                    server="s",
                    phase=Phase.MEASURE,
                    intended_ns=number * S // 10,
                    sent_ns=number * S // 10,
                    end_ns=number * S // 10 + S,
                    error=error,
                )
            )
    result = CellResult(
        id=cell.id,
        key=cell.key,
        status=CellStatus.OK if served and not broken else CellStatus.FAILED,
        label=cell.key.mode.value,
        provenance=Provenance.SIMULATED,
        fingerprint=cell.fingerprint,
        window_ns=(0, 5 * S),
        tenants=[
            {"name": t.name, "open_loop": t.arrival.kind != "closed", "slo": {"e2e_s": 2.0}}
            for t in cell.tenants
        ],
    )
    return StoredCell(writer.finish(result), result)


def _run(hunt: KneeHunt, plan: RunPlan, store: ResultStore, most: int = 1000) -> list[str]:
    """Measure what the hunt asks for, at most so many cells; their ids in order."""
    ran: list[str] = []
    for deployment in plan.deployments:
        left = list(deployment.cells)
        while left and len(ran) < most:
            cell = left.pop(0)
            ran.append(cell.id)
            left += hunt.after(cell, _measure(store, cell))
    return ran


def _hunt(settings: Settings) -> KneeHunt:
    hunt = knee_hunt(settings)
    assert hunt is not None
    return hunt


@pytest.fixture
def store(tmp_path: Path) -> ResultStore:
    """An empty result folder."""
    return ResultStore.create(tmp_path / "out", {"name": "m"})


CHAT = ("chat", POISSON, "{e2e_s: 2}")


def test_each_mode_gets_a_knee_of_its_own(tmp_path: Path, store: ResultStore) -> None:
    """The rates are scaled until the last load that is met and the first that is not are near."""
    settings = _settle(tmp_path, CHAT, modes=["logical", "mps"])
    hunt = _hunt(settings)
    ran = _run(hunt, hunt.begin(make_plan(settings), {}), store)
    assert len(ran) == len(set(ran)) <= 2 * 2 * 8
    for knee in knees(store.cells(), KneeSearch(), 5):
        low, high = knee.bracket.low, knee.bracket.high
        assert low is not None
        assert high is not None
        assert low <= LIMIT[knee.label] < high <= 1.11 * low
        assert knee.says == "found"
    assert hunt.overloaded, "cells that failed for their load are what was looked for"
    assert hunt.overloaded == {c.result.id for c in store.cells() if c.result.status != "ok"}


def test_a_search_that_was_cut_off_goes_on_as_it_would_have(
    tmp_path: Path, store: ResultStore
) -> None:
    """Whenever it is cut off, both calls together run the very cells of an undisturbed one."""
    settings = _settle(tmp_path, CHAT, modes=["logical"])
    whole = _hunt(settings)
    undisturbed = _run(whole, whole.begin(make_plan(settings), {}), store)
    for cut in range(len(undisturbed)):
        again = ResultStore.create(tmp_path / f"cut-{cut}", {"name": "m"})
        first = _hunt(settings)
        before = _run(first, first.begin(make_plan(settings), {}), again, most=cut)
        second = _hunt(settings)
        done = {cell.result.id: cell for cell in again.cells()}
        after = _run(second, second.begin(make_plan(settings), done), again)
        assert before + after == undisturbed
        found = {c.id for c in second.spread(make_plan(settings), again.cells()).cells}
        assert found >= set(undisturbed), "what is on disk is known to be the sweep's own"


def test_numbers_in_flight_are_searched_where_nobody_has_a_rate(
    tmp_path: Path, store: ResultStore
) -> None:
    """A closed loop is loaded by its concurrency, from where the sweep says it begins."""
    settings = _settle(tmp_path, ("chat", CLOSED, "{e2e_s: 2}"), modes=["logical"], concurrency=[8])
    hunt = _hunt(settings)
    _run(hunt, hunt.begin(make_plan(settings), {}), store)
    (knee,) = knees(store.cells(), KneeSearch(), 5)
    assert (knee.bracket.low, knee.bracket.high) == (3, 4)
    assert knee.load_text(knee.bracket.low) == "3 in flight"


def test_who_was_promised_nothing_is_not_searched(tmp_path: Path, store: ResultStore) -> None:
    """Alone on the device, only tenants with an SLO have a knee; with none at all it is refused."""
    settings = _settle(tmp_path, CHAT, ("batch", POISSON, "{}"), modes=["exclusive"])
    hunt = _hunt(settings)
    begun = hunt.begin(make_plan(settings), {})
    assert [cell.key.tenant for cell in begun.cells] == ["chat"]
    check_search(settings, make_plan(settings))
    nobody = _settle(tmp_path, ("batch", POISSON, "{}"), modes=["mps"])
    with pytest.raises(SpecError, match="no tenant of s_mps_r1 has an SLO"):
        check_search(nobody, make_plan(nobody))
    fixed = _settle(tmp_path, ("c", "{kind: closed, concurrency: 2}", "{e2e_s: 2}"), modes=["mps"])
    with pytest.raises(SpecError, match="fixed number of requests in flight"):
        check_search(fixed, make_plan(fixed))


def test_what_broke_is_no_evidence(tmp_path: Path, store: ResultStore) -> None:
    """A cell that failed for another reason than its load leaves its point without a verdict."""
    settings = _settle(tmp_path, CHAT, modes=["logical"])
    hunt = _hunt(settings)
    (first,) = hunt.begin(make_plan(settings), {}).cells
    (below,) = hunt.after(first, _measure(store, first, broken=True))
    assert below.key.load_scale < 1
    assert not hunt.overloaded
    resumed = _hunt(settings)
    done = {cell.result.id: cell for cell in store.cells()}
    _run(resumed, resumed.begin(make_plan(settings), done), store)
    (knee,) = knees(store.cells(), KneeSearch(), 5)
    assert knee.says.startswith("failed at x1")


def test_a_search_can_be_predicted(tmp_path: Path) -> None:
    """In virtual time the simulated servers are asked as the real ones would be."""
    hopeless = ("chat", CLOSED, "{ttft_s: 0.000000001}")
    settings = _settle(tmp_path, hopeless, modes=["logical"], concurrency=[2], window_s=1)
    outcome = predict(settings, make_plan(settings), tmp_path / "out", request={})
    assert [result.key.concurrency for result in outcome.results] == [2, 2, 1, 1]
    (knee,) = knees(ResultStore.open(tmp_path / "out").cells(), KneeSearch(), 5)
    assert knee.says == "missed even at 1 in flight, the lowest tried"
