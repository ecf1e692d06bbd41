"""What becomes of a server by its failure knobs."""

from __future__ import annotations

import pytest

from fairshare.virtual.failing import FAIL_ENV
from fairshare.virtual.fates import Doom, Fate, doom_of_knobs, slowed
from fairshare.virtual.memory import StartError
from fairshare.virtual.physics import Demand
from fairshare.virtual.rules import TimeSliced

DEMAND = Demand(0.01, 0.02, 0.001)


@pytest.mark.parametrize(("knob", "factor"), [("", 1), ("server_slow", 10), ("server_slow=3", 3)])
def test_a_slow_server_takes_so_many_times_as_long(
    knob: str, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each step, by ten where nothing is said, and not at all without the knob."""
    monkeypatch.setenv(FAIL_ENV, knob)
    rule = TimeSliced()
    assert slowed(rule).step_s(DEMAND, []) == factor * rule.step_s(DEMAND, [])


@pytest.mark.parametrize("fate", Fate)
def test_a_fate_comes_after_so_many_tokens(fate: Fate, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first where no number is said; what is no number is refused."""
    monkeypatch.setenv(FAIL_ENV, f"{fate}=7")
    assert doom_of_knobs() == Doom(fate, 7)
    monkeypatch.setenv(FAIL_ENV, fate)
    assert doom_of_knobs() == Doom(fate, 1)
    monkeypatch.setenv(FAIL_ENV, f"{fate}=soon")
    with pytest.raises(StartError, match="not a positive number"):
        doom_of_knobs()
