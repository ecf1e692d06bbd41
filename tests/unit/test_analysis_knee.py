"""The search for the knee, on probes that answer by rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fairshare.analysis.knee import (
    Axis,
    Bracket,
    Tally,
    Verdict,
    Window,
    attainment,
    axis_of,
    bracket,
    judge,
    narrow,
    next_load,
)
from fairshare.records import CellKey, Mode

MET, MISSED, UNDECIDED = Verdict.MET, Verdict.MISSED, Verdict.UNDECIDED


def _hunt(
    probe: Callable[[float], Verdict], start: float, *, resolution: float = 0.1, whole: bool = False
) -> dict[float, Verdict]:
    verdicts: dict[float, Verdict] = {}
    while (load := next_load(verdicts, start, resolution, whole=whole)) is not None:
        assert load not in verdicts, "a point is measured once"
        verdicts[load] = probe(load)
        assert len(verdicts) < 40
    return verdicts


@pytest.mark.parametrize("knee", [0.05, 0.31, 1.0, 1.04, 7.7, 55.0])
@pytest.mark.parametrize("resolution", [0.01, 0.1, 0.5])
def test_the_knee_is_found_wherever_it_lies(knee: float, resolution: float) -> None:
    """The last served and first unserved load enclose the knee, as near as was asked for."""
    verdicts = _hunt(lambda load: MET if load <= knee else MISSED, 1.0, resolution=resolution)
    found = bracket(verdicts)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= knee < found.high <= found.low * (1 + resolution) * (1 + 1e-9)
    assert len(verdicts) <= 16


@pytest.mark.parametrize("knee", [1, 2, 3, 13, 64])
def test_whole_loads_are_found_exactly(knee: int) -> None:
    """Numbers in flight are whole; the knee of few of them is one number."""
    verdicts = _hunt(lambda load: MET if load <= knee else MISSED, 4, resolution=0.01, whole=True)
    assert all(load == int(load) >= 1 for load in verdicts)
    assert bracket(verdicts) == Bracket(knee, knee + 1)


def test_a_search_ends_where_nothing_is_served_or_everything_is() -> None:
    """Beyond a factor of 64 it stops, and the bracket has no lower, or no upper, end."""
    nothing = _hunt(lambda load: MISSED, 2.0)
    assert (min(nothing), bracket(nothing)) == (0.0312, Bracket(None, 0.0312))
    everything = _hunt(lambda load: MET, 2.0)
    assert (max(everything), bracket(everything)) == (128.0, Bracket(128.0, None))
    assert bracket(_hunt(lambda load: MISSED, 4, whole=True)) == Bracket(None, 1)


def test_what_is_not_decided_is_not_served() -> None:
    """The knee's lower end is always a load that was shown to be served."""

    def probe(load: float) -> Verdict:
        return MET if load < 3 else UNDECIDED if load < 4 else MISSED

    verdicts = _hunt(probe, 1.0)
    found = bracket(verdicts)
    assert found.low is not None
    assert found.high is not None
    assert verdicts[found.low] is MET
    assert verdicts[found.high] is UNDECIDED
    assert narrow(found, 0.1, whole=False)


def test_a_load_of_too_few_requests_is_no_reason_to_try_a_lower_one() -> None:
    """More load is more requests: the search goes up until it can tell, and finds the knee."""

    def probe(load: float) -> Verdict:
        return UNDECIDED if load < 6 else MET if load < 20 else MISSED

    verdicts = _hunt(probe, 1.0)
    found = bracket(verdicts)
    assert min(verdicts) == 1.0
    assert found.low is not None
    assert found.high is not None
    assert 18 < found.low < 20 <= found.high < 22
    vain = _hunt(lambda load: MISSED if load > 0.6 else UNDECIDED, 1.0)
    assert min(vain) == 0.25, "below, there are fewer still"
    near = _hunt(lambda load: MET if load < 0.9 else UNDECIDED if load < 1.1 else MISSED, 1.0)
    assert bracket(near).high == pytest.approx(0.95, abs=0.06), "near the knee it still goes down"


def test_a_point_is_decided_by_an_interval_clear_of_the_requirement() -> None:
    """Few requests decide nothing; enough do; what stays open after all windows is said to be."""
    few: Window = {"chat": Tally(10, 10)}
    assert judge([few], 0.9, 5) is None
    assert judge([few, few], 0.9, 5) is None
    assert judge([{"chat": Tally(40, 40)}] * 2, 0.9, 5) is None, "two windows show no spread"
    assert judge([{"chat": Tally(60, 60)}] * 3, 0.9, 5) is MET
    assert judge([few] * 5, 0.9, 5) is UNDECIDED
    assert judge([few] * 2, 0.9, 2) is UNDECIDED
    assert judge([{"chat": Tally(5, 20)}], 0.9, 5) is None, "one window decides nothing"
    assert judge([{"chat": Tally(5, 20)}] * 2, 0.9, 5) is MISSED
    assert judge([few, None], 0.9, 5) is Verdict.FAILED


def test_every_tenant_counts_by_itself() -> None:
    """A tenant that is not served is not made up for by one that is."""
    window: Window = {"chat": Tally(400, 400), "batch": Tally(2, 100)}
    assert judge([window] * 2, 0.9, 5) is MISSED
    assert judge([{"chat": Tally(400, 400), "batch": Tally(0, 0)}] * 5, 0.9, 5) is UNDECIDED


def test_windows_that_differ_are_worth_fewer_requests() -> None:
    """The interval is as wide as the windows lie apart, and wider where they are few."""
    alike = attainment([Tally(90, 100)] * 4)
    apart = attainment([Tally(100, 100), Tally(70, 100), Tally(98, 100), Tally(92, 100)])
    # Wilson of 136.6 of 151.8: three degrees of freedom leave 0.379 of 360 of 400.
    assert alike.low == pytest.approx(0.8421, abs=1e-3)
    assert alike.high == pytest.approx(0.9382, abs=1e-3)
    assert apart.low < alike.low
    assert apart.high > alike.high


def test_a_wrong_decision_is_as_rare_as_the_interval_says() -> None:
    """Of points just above or below the requirement hardly any are judged the wrong way."""
    random = np.random.default_rng(7)

    def decide(share: float) -> Verdict:
        windows: list[Window] = []
        while True:
            # Near the knee the queue of one window is nothing like that of another.
            own = min(1.0, max(0.0, random.normal(share, 0.1)))
            windows.append({"chat": Tally(int(random.binomial(80, own)), 80)})
            if (verdict := judge(windows, 0.9, 5)) is not None:
                return verdict

    below = [decide(0.83) for _ in range(400)]
    above = [decide(0.93) for _ in range(400)]
    assert below.count(MET) <= 0.05 * 400
    assert above.count(MISSED) <= 0.05 * 400
    assert below.count(MISSED) > above.count(MISSED)


def test_what_can_be_varied_depends_on_who_sends() -> None:
    """Rates where somebody has a schedule, the number in flight where nobody has, else nothing."""
    key = CellKey("s", Mode.MPS, 4)
    assert axis_of(key, open_loop=True) is Axis.LOAD_SCALE
    assert axis_of(key, open_loop=False) is Axis.CONCURRENCY
    assert axis_of(CellKey("s", Mode.MPS, None), open_loop=False) is None
