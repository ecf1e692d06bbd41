"""The shipped scenarios are right, can be planned, and are what they claim to be."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from fairshare import assets
from fairshare.spec.loading import load_scenario
from fairshare.spec.scenario import Tenant
from fairshare.spec.trace import Trace
from fairshare.spec.workload import ClosedLoop, GammaArrivals, SyntheticPrompts
from fairshare.workload.arrivals import offsets_s
from fairshare.workload.contents import Adjustments
from fairshare.workload.lengths import sample
from fairshare.workload.prompts import Vocabulary
from fairshare.workload.requests import planned_requests
from fairshare.workload.traces import Due, read_trace

ROOT = Path(__file__).parents[2]
TRACES = ROOT.parent / "shared" / "data" / "azure2023"
SCENARIOS = sorted(path.stem for path in assets.shipped_dir("scenario").glob("*.yaml"))
CONTEXT_TOKENS = 2048


def test_all_five_are_shipped() -> None:
    """The scenarios that the documentation names are there."""
    assert set(SCENARIOS) >= {
        "two-tenants",
        "noisy-neighbor",
        "azure-2023",
        "four-tenants",
        "short-and-long",
    }


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_shipped_scenario_is_valid_and_says_how_to_run_it(name: str) -> None:
    """Its name is its file's, it has a description, and its head is a question and a command."""
    scenario, path = load_scenario(name)
    assert scenario.name == name
    assert scenario.description
    head = path.read_text("utf-8").split("name:")[0]
    assert "?" in head
    assert f"fairshare matrix {name}" in head or f"fairshare run {name}" in head


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_shipped_scenario_can_be_planned_within_2048_tokens(name: str) -> None:
    """Every tenant has requests in the window; only azure-2023 has any that must be shortened."""
    scenario, path = load_scenario(name)
    timing = scenario.timing
    for tenant in scenario.expanded():
        adjustments = Adjustments()
        planned = planned_requests(
            tenant,
            cell_seed=scenario.seed,
            horizon_s=timing.warmup_s + timing.window_s,
            window_start_s=timing.warmup_s,
            window_s=timing.window_s,
            load_scale=1.0,
            vocabulary=Vocabulary(1000),
            base_dir=path.parent,
            max_total_tokens=CONTEXT_TOKENS,
            adjustments=adjustments,
        )
        requests = list(islice(planned, 500))
        assert len(requests) == 500 if isinstance(tenant.arrival, ClosedLoop) else requests
        assert max(r.prompt_tokens + r.max_tokens for r in requests) <= CONTEXT_TOKENS
        assert (adjustments.clipped > 0) == (name == "azure-2023")


def _trace(tenant: str) -> tuple[Due, ...]:
    path = TRACES / f"AzureLLMInferenceTrace_{'code' if tenant == 'code' else 'conv'}.csv"
    if not path.is_file():
        pytest.skip("the Azure traces are not here (../shared/data/azure2023)")
    return read_trace(Trace(path=str(path)), TRACES).due


def _azure_tenant(name: str) -> Tenant:
    scenario, _ = load_scenario("azure-2023")
    return next(tenant for tenant in scenario.tenants if tenant.name == name)


@pytest.mark.parametrize("name", ["code", "conversation"])
def test_azure_lengths_are_the_measured_ones(name: str) -> None:
    """Median and mean of generated lengths are within 10 percent of the trace's."""
    rows, tenant = _trace(name), _azure_tenant(name)
    assert isinstance(tenant.prompts, SyntheticPrompts)
    assert tenant.output is not None
    rng = np.random.default_rng(1)
    for length, measured in (
        (tenant.prompts.tokens, [due.row.prompt_tokens for due in rows]),
        (tenant.output, [due.row.output_tokens for due in rows]),
    ):
        drawn = sample(length, rng, 50_000)
        assert np.median(drawn) == pytest.approx(np.median(measured), rel=0.1)
        assert np.mean(drawn) == pytest.approx(np.mean(measured), rel=0.1)


@pytest.mark.parametrize("name", ["code", "conversation"])
def test_azure_gaps_are_the_measured_ones_at_a_load_scale_of_four(name: str) -> None:
    """Median and mean gap are within 10 percent of the trace's: the scenario has a quarter."""
    rows, tenant = _trace(name), _azure_tenant(name)
    assert isinstance(tenant.arrival, GammaArrivals)
    measured = np.diff([due.time_s for due in rows])
    times = offsets_s(tenant.arrival, np.random.default_rng(1), duration_s=20_000, load_scale=4.0)
    drawn = np.diff(list(times))
    assert np.median(drawn) == pytest.approx(np.median(measured), rel=0.1)
    assert np.mean(drawn) == pytest.approx(np.mean(measured), rel=0.1)


@pytest.mark.parametrize(("name", "count"), [("code", 8819), ("conversation", 19366)])
def test_azure_traces_are_read_whole(name: str, count: int) -> None:
    """Every request of the published files is read, in order of time."""
    rows = _trace(name)
    assert len(rows) == count
    assert rows[0].time_s == 0
