"""The shipped scenarios are right, can be planned, and are what they claim to be."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairshare import assets
from fairshare.spec.loading import load_scenario
from fairshare.spec.scenario import Scenario, Tenant
from fairshare.spec.trace import Trace
from fairshare.spec.workload import ClosedLoop, GammaArrivals, StepArrivals, SyntheticPrompts
from fairshare.workload.arrivals import offsets_s
from fairshare.workload.contents import Adjustments
from fairshare.workload.lengths import sample
from fairshare.workload.prompts import Vocabulary
from fairshare.workload.requests import PlannedRequest, planned_requests
from fairshare.workload.traces import Due, read_trace

ROOT = Path(__file__).parents[2]
TRACES = ROOT.parent / "shared" / "data" / "azure2023"
SCENARIOS = sorted(path.stem for path in assets.shipped_dir("scenario").glob("*.yaml"))
CONTEXT_TOKENS = 2048


# What the VTC artifact (fair_bench/exp_suite.py) says of each synthetic suite: rates per second,
# prompt and output tokens of the first tenant and of the last, seconds.
VTC: dict[str, tuple[list[float], tuple[float, float], tuple[float, float], float]] = {
    "overload": ([1.5, 3], (256, 256), (256, 256), 360),
    "overload-multi": ([0.4] * 3 + [0.6] * 5, (256, 256), (256, 256), 360),
    "overload-weighted": ([0.8, 0.8, 1.2, 1.6], (256, 256), (256, 256), 360),
    "overload-s4": ([4, 8], (256, 256), (256, 256), 600),
    "overload-s4-short": ([8, 16], (128, 128), (128, 128), 600),
    "overload-s4-long": ([2, 4], (512, 512), (512, 512), 600),
    "overload-s4-35000-128": ([6, 12], (128, 128), (128, 128), 600),
    "overload-s4-35000-256": ([3, 6], (256, 256), (256, 256), 600),
    "overload-s4-35000-512": ([1.5, 3], (512, 512), (512, 512), 600),
    "overload-s4-35000-768": ([1, 2], (768, 768), (768, 768), 600),
    "proportional": ([0.25, 0.5, 1.5], (256, 256), (256, 256), 600),
    "on-off-less": ([0.25, 2], (256, 256), (256, 256), 600),  # the first one half of the time
    "on-off-overload": ([1, 3], (256, 256), (256, 256), 600),
    "poisson-short-long": ([8, 1.5], (64, 64), (256, 256), 600),
    "poisson-short-long-2": ([8, 1.5], (512, 32), (32, 512), 600),
    "poisson-on-off-overload": ([0.25, 2], (263.5, 263.5), (263.5, 263.5), 600),
    "increase": ([0.5, 1.1], (256, 256), (256, 256), 600),
    "dist-shift": ([(0.3 + 1 + 0.5) / 3, 1.5], (256, 256), (256, 256), 900),
    "ablation-rpm": ([0.2, 0.8], (256, 256), (256, 256), 300),
}


def test_the_main_scenarios_are_shipped() -> None:
    """The scenarios that the documentation names are there."""
    assert set(SCENARIOS) >= {
        "two-tenants",
        "noisy-neighbor",
        "azure-2023",
        "four-tenants",
        "short-and-long",
        "fairserve-chains",
        "conversations",
        "light-and-heavy",
    }


def test_every_suite_of_the_vtc_artifact_is_shipped() -> None:
    """The synthetic ones, and a stand-in for the real one; none beside."""
    shipped = {name for name in SCENARIOS if name.startswith("vtc-")}
    assert shipped == {f"vtc-{suite}" for suite in VTC} | {"vtc-real"}


@pytest.mark.parametrize("suite", VTC)
def test_a_vtc_suite_sends_what_the_artifact_sends(suite: str) -> None:
    """As many requests, as long, for as long; without a warm-up, and with time to finish."""
    rates, first, last, seconds = VTC[suite]
    scenario, path = load_scenario(f"vtc-{suite}")
    assert "github.com/Ying1123/VTC-artifact" in path.read_text("utf-8")
    assert scenario.timing.warmup_s == 0
    assert scenario.timing.window_s == seconds
    tenants = scenario.expanded()
    plans = [_planned(tenant, scenario, path) for tenant in tenants]
    for plan, rate in zip(plans, rates, strict=True):
        assert len(plan) == pytest.approx(rate * seconds, abs=1 + 4 * np.sqrt(rate * seconds))
    for plan, (prompt, output) in ((plans[0], first), (plans[-1], last)):
        assert np.mean([r.prompt_tokens for r in plan]) == pytest.approx(prompt, rel=0.15)
        assert np.mean([r.max_tokens for r in plan]) == pytest.approx(output, rel=0.15)
    assert {tenant.timeout_s for tenant in tenants} == {1800}


def test_weights_of_the_weighted_suite_are_one_to_four() -> None:
    """In the order of the artifact's clients."""
    scenario, _ = load_scenario("vtc-overload-weighted")
    assert [tenant.weight for tenant in scenario.tenants] == [1, 2, 3, 4]


def test_vtc_real_has_the_measured_requests_of_every_client() -> None:
    """Each client's number of requests in ten minutes, and all clients' lengths."""
    path = ROOT.parent / "shared" / "data" / "vtc"
    if not path.is_dir():
        pytest.skip("the results of the VTC artifact are not here (../shared/data/vtc)")
    due = read_trace(Trace(path="VTC_all_results_real.jsonl"), path).due
    measured = Counter((one.row.session or "").rpartition("-")[2] for one in due)
    scenario, _ = load_scenario("vtc-real")
    for tenant in scenario.tenants:
        assert isinstance(tenant.arrival, StepArrivals)
        told = 100 * sum(tenant.arrival.rates_per_s)
        assert told == pytest.approx(measured.pop(tenant.name.removeprefix("client-")))
    assert not measured
    prompts, output = scenario.tenants[0].prompts, scenario.tenants[0].output
    assert isinstance(prompts, SyntheticPrompts)
    assert output is not None
    rng = np.random.default_rng(1)
    for length, measured_tokens in (
        (prompts.tokens, [one.row.prompt_tokens for one in due]),
        (output, [one.row.output_tokens for one in due]),
    ):
        drawn = sample(length, rng, 50_000)
        assert np.mean(drawn) == pytest.approx(np.mean(measured_tokens), rel=0.1)
        assert np.median(drawn) == pytest.approx(np.median(measured_tokens), rel=0.1)


def _planned(
    tenant: Tenant, scenario: Scenario, path: Path, **changes: Any
) -> list[PlannedRequest]:
    timing = scenario.timing
    given: dict[str, Any] = {
        "cell_seed": scenario.seed,
        "horizon_s": timing.warmup_s + timing.window_s,
        "window_start_s": timing.warmup_s,
        "window_s": timing.window_s,
        "load_scale": 1.0,
        "vocabulary": Vocabulary(1000),
        "base_dir": path.parent,
    }
    limit = 500 if isinstance(tenant.arrival, ClosedLoop) else None
    return list(islice(planned_requests(tenant, **(given | changes)), limit))


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
    for tenant in scenario.expanded():
        adjustments = Adjustments()
        requests = _planned(
            tenant, scenario, path, max_total_tokens=CONTEXT_TOKENS, adjustments=adjustments
        )
        if name == "vtc-real" and not requests:
            continue  # some of its clients ask once in ten minutes
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
