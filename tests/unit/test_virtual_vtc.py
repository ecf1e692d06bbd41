"""VTC's experiments in virtual time: policies come out in the order in which they were measured."""

from __future__ import annotations

import pytest

from benchmarks import virtual_gpu_vtc as vtc

# What `python -m benchmarks.virtual_gpu_vtc` fits to how long all schedulers took.
SPEEDS = {"overload": 0.984, "real": 0.918}


@pytest.mark.skipif(
    not vtc.RESULTS.is_dir(), reason=f"the artifact's stored results are not at {vtc.RESULTS}"
)
@pytest.mark.parametrize(("suite", "speed"), SPEEDS.items())
def test_the_order_of_schedulers_is_the_published_one(suite: str, speed: float) -> None:
    """Mean service differences rank alike, and those of FCFS and VTC are within 15 %."""
    rows = [row for row in vtc.SUITES[suite] if row.measured is None]
    was = [vtc.published(row) for row in rows]
    now = [vtc.typical(row, speed) for row in rows]
    assert [wrong for wrong in vtc.misplaced(rows, was, now) if "d_mean" in wrong] == []
    for row, there, here in zip(rows, was, now, strict=True):
        if row.name != "LCF":
            assert here.d_mean == pytest.approx(there.d_mean, rel=0.15)
        assert here.tokens_per_s == pytest.approx(there.tokens_per_s, rel=0.03)


def test_room_is_counted_at_the_worst_moment() -> None:
    """Of requests with (left, used) tokens, those that end early give their room back in time."""
    assert vtc.most_needed([(10, 5)]) == 15
    assert vtc.most_needed([(10, 5), (2, 20)]) == 29  # as the second ends: 5 + 20 + 2 * 2
    assert vtc.most_needed([(10, 5), (10, 5)]) == 30
