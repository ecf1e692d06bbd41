"""What is made of the time that simulated servers count."""

from __future__ import annotations

from fairshare.runner.dilation import dilation, too_slow


def _counted(ttft_s: float, e2e_s: float, lost_s: float = 0.0) -> dict[str, float]:
    """A server that has simulated 10 s to first tokens and 100 s to ends."""
    return {
        "ttft_seconds_total": ttft_s,
        "ttft_simulated_seconds_total": 10.0,
        "e2e_seconds_total": e2e_s,
        "e2e_simulated_seconds_total": 100.0,
        "time_lost_seconds_total": lost_s,
    }


NOTHING = dict.fromkeys(_counted(0, 0), 0.0)


def test_the_latest_server_stands_for_the_cell() -> None:
    """Its factors are real over simulated time since the cell began."""
    before = {"a": NOTHING, "b": NOTHING}
    found = dilation(before, {"a": _counted(10.1, 100.0), "b": _counted(13.0, 104.0, 1.5)})
    assert found == {"ttft": 1.3, "e2e": 1.04, "lost_s": 1.5}
    assert "30 % longer" in (too_slow(found) or "")


def test_a_host_that_keeps_up_is_not_blamed() -> None:
    """Nor is one whose servers answered nothing, or are gone."""
    assert too_slow(dilation({"a": NOTHING}, {"a": _counted(10.05, 100.1)})) is None
    assert dilation({"a": NOTHING}, {"a": NOTHING}) is None
    assert dilation({"a": NOTHING}, {}) is None
    assert too_slow(None) is None
