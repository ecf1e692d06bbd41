"""Calibration: constants are found again from requests that were served with them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from fairshare.analysis.calibrate import (
    Measured,
    Served,
    calibrate,
    measured_requests,
    replayed,
)
from fairshare.devices.constants import gpu_spec
from fairshare.errors import ResultsError
from fairshare.records import ErrorKind, Phase, RequestRecord
from fairshare.virtual.deployed import GpuFigures
from fairshare.virtual.engine import Limits
from fairshare.virtual.models import virtual_model
from fairshare.virtual.physics import PUBLISHED

SERVED = Served(
    GpuFigures.of(gpu_spec("h100-80")), virtual_model("llama-3-8b"), Limits(256, 2048, 20_000)
)
TRUE = replace(PUBLISHED, compute_efficiency=0.45, memory_efficiency=0.68, front_end_s=0.008)


def served_with(count: int, seed: int, noise: float) -> list[Measured]:
    """Requests at random times, served by a device with the true constants."""
    rng = random.Random(seed)
    sent_s, asked = 0.0, []
    for _ in range(count):
        sent_s += rng.expovariate(4.0)
        asked.append(Measured(sent_s, rng.randint(50, 3000), rng.randint(20, 300), 0.0, 0.0))
    found = []
    for request, (ttft, e2e) in zip(asked, replayed(SERVED, asked, TRUE), strict=True):
        by = 1 + noise * rng.uniform(-1, 1)
        found.append(replace(request, ttft_s=ttft * by, e2e_s=e2e * by))
    return found


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_calibration_finds_the_constants_that_the_requests_were_served_with(noise: float) -> None:
    """Efficiencies come back within 5 %, and requests kept back are predicted within 2 % E2E."""
    found = calibrate([(SERVED, served_with(150, 1, noise))])
    assert found.constants.compute_efficiency == pytest.approx(0.45, rel=0.05)
    assert found.constants.memory_efficiency == pytest.approx(0.68, rel=0.05)
    assert found.constants.front_end_s == pytest.approx(0.008, abs=0.005)
    assert abs(found.held_out.e2e) < 0.02
    assert abs(found.uncalibrated.e2e) > 0.1
    assert found.requests == 150


def test_constants_that_were_not_fitted_stay() -> None:
    """Only the efficiencies and the front end's delay change: no other can be seen alone."""
    found = calibrate([(SERVED, served_with(40, 2, 0.0))]).constants
    assert found.timeslice_tax == PUBLISHED.timeslice_tax
    assert found.layer_latency_s == PUBLISHED.layer_latency_s


def test_too_few_requests_are_refused() -> None:
    """Nothing is fitted to a handful of requests."""
    with pytest.raises(ResultsError, match="20 are needed"):
        calibrate([(SERVED, served_with(19, 1, 0.0))])


def test_only_whole_answers_that_were_computed_are_used() -> None:
    """Failures, single tokens and prompts from a prefix cache say nothing of a device's speed."""

    def record(name: str, **changes: object) -> RequestRecord:
        whole = RequestRecord(
            name, "a", "all", Phase.MEASURE, 0, sent_ns=10**9, first_token_ns=2 * 10**9,
            end_ns=4 * 10**9, prompt_tokens=100, cached_tokens=0, output_tokens=5,
        )  # fmt: skip
        for field, value in changes.items():
            setattr(whole, field, value)
        return whole

    found = measured_requests(
        [
            record("late", sent_ns=2 * 10**9),
            record("good"),
            record("failed", error=ErrorKind.TIMEOUT),
            record("cached", cached_tokens=16),
            record("single", output_tokens=1),
            record("silent", first_token_ns=None),
        ]
    )
    assert [(m.sent_s, m.ttft_s, m.e2e_s, m.tpot_s) for m in found] == [
        (1.0, 1.0, 3.0, 0.5),
        (2.0, 0.0, 2.0, 0.5),
    ]
