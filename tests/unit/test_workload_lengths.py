"""Lengths follow what the scenario says of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from fairshare.spec.lengths import Length
from fairshare.workload.lengths import BLOCK, endless, sample

N = 20_000


def _draw(raw: dict[str, Any], n: int = N, seed: int = 1) -> np.ndarray[Any, Any]:
    length: Length = TypeAdapter(Length).validate_python(raw)
    return np.array(sample(length, np.random.default_rng(seed), n))


def test_fixed_lengths_are_all_the_same() -> None:
    """A fixed length is drawn as it is."""
    assert set(_draw({"kind": "fixed", "tokens": 7}).tolist()) == {7}


def test_uniform_lengths_reach_both_bounds() -> None:
    """Both bounds are included, nothing lies outside, and the mean is theirs."""
    drawn = _draw({"kind": "uniform", "min": 3, "max": 12})
    assert (drawn.min(), drawn.max()) == (3, 12)
    assert drawn.mean() == pytest.approx(7.5, rel=0.02)


def test_normal_lengths_have_the_asked_mean_and_spread() -> None:
    """Wide bounds leave the normal distribution as it is."""
    drawn = _draw({"kind": "normal", "mean": 200, "stddev": 20})
    assert drawn.mean() == pytest.approx(200, rel=0.01)
    assert drawn.std() == pytest.approx(20, rel=0.05)


def test_bounds_cut_by_redrawing_not_by_piling_up() -> None:
    """Draws outside the bounds are redrawn, so the bounds are not hit far more than their peers."""
    drawn = _draw({"kind": "normal", "mean": 100, "stddev": 50, "min": 80, "max": 120})
    assert drawn.min() >= 80
    assert drawn.max() <= 120
    assert np.mean(drawn == 120) < 0.05


def test_bounds_hold_even_where_redrawing_cannot_reach_them() -> None:
    """A spread of zero beside fractional bounds ends, within the bounds."""
    drawn = _draw({"kind": "lognormal", "median": 10.4, "sigma": 5, "min": 10, "max": 11}, n=300)
    assert set(drawn.tolist()) <= {10, 11}


def test_lognormal_lengths_have_the_asked_median_and_sigma() -> None:
    """The median and the spread of the logarithm are those that were asked for."""
    drawn = _draw({"kind": "lognormal", "median": 300, "sigma": 0.7})
    assert np.median(drawn) == pytest.approx(300, rel=0.03)
    assert np.log(drawn).std() == pytest.approx(0.7, rel=0.03)


def test_quantile_lengths_reproduce_their_quantiles() -> None:
    """Each given value is the quantile at its given probability."""
    at, values = [0, 0.5, 0.9, 1], [10, 100, 200, 1000]
    drawn = _draw({"kind": "quantiles", "at": at, "values": values})
    shares = [np.mean(drawn <= value) for value in values]
    assert shares == pytest.approx(at, abs=0.01)
    assert drawn.max() <= 1000


def test_quantiles_without_probabilities_are_equally_spaced() -> None:
    """Three values are the minimum, the median and the maximum."""
    drawn = _draw({"kind": "quantiles", "values": [1, 50, 1000]})
    assert np.median(drawn) == pytest.approx(50, rel=0.05)


@pytest.mark.parametrize(
    ("at", "complaint"),
    [
        ([0, 1], "3 values but 2 probabilities"),
        ([], "3 values but 0 probabilities"),
        ([0, 0.5, 0.9], "rise from 0 to 1"),
        ([0, 1, 1], "rise from 0 to 1"),
    ],
)
def test_wrong_probabilities_are_refused(at: list[float], complaint: str) -> None:
    """Probabilities that do not belong to the values are a mistake, not a guess."""
    with pytest.raises(ValidationError, match=complaint):
        _draw({"kind": "quantiles", "values": [1, 2, 3], "at": at})


def test_a_mixture_has_its_parts_in_proportion() -> None:
    """Parts are drawn with their weights, each with its own lengths."""
    parts = [
        {"weight": 3, "length": {"kind": "fixed", "tokens": 10}},
        {"weight": 1, "length": {"kind": "uniform", "min": 100, "max": 200}},
    ]
    drawn = _draw({"kind": "mix", "parts": parts})
    assert np.mean(drawn == 10) == pytest.approx(0.75, abs=0.02)
    assert set(drawn[drawn != 10].tolist()) <= set(range(100, 201))


def test_an_endless_stream_is_the_same_however_far_it_is_read() -> None:
    """The k-th length depends on seed and k, also past the end of a block."""
    length: Length = TypeAdapter(Length).validate_python({"kind": "uniform", "min": 1, "max": 999})

    def first(n: int) -> list[int]:
        stream = endless(length, np.random.default_rng(5))
        return [next(stream) for _ in range(n)]

    assert first(2 * BLOCK + 3)[: BLOCK + 1] == first(BLOCK + 1)
