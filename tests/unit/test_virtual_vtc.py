"""VTC's experiments in virtual time: policies come out in the order in which they were measured."""

from __future__ import annotations

import pytest

from benchmarks import virtual_gpu_vtc as vtc

FASTER = 0.948  # what `python -m benchmarks.virtual_gpu_vtc` fits to the overload under FCFS


@pytest.mark.skipif(
    not vtc.RESULTS.is_dir(), reason=f"the artifact's stored results are not at {vtc.RESULTS}"
)
@pytest.mark.parametrize("suite", vtc.SUITES)
def test_the_order_of_policies_is_the_published_one(suite: str) -> None:
    """Mean service differences rank alike, and those of FCFS and VTC are within 15 %."""
    was = {policy: vtc.published(name) for policy, name in vtc.SUITES[suite].items()}
    now = {
        policy: vtc.simulated(name, policy, vtc.scaled(FASTER))
        for policy, name in vtc.SUITES[suite].items()
    }
    ranked = [sorted(found, key=lambda policy: found[policy].d_mean) for found in (was, now)]
    assert ranked[0] == ranked[1]
    for policy in ("fcfs", "vtc"):
        assert now[policy].d_mean == pytest.approx(was[policy].d_mean, rel=0.15)
        assert now[policy].tokens_per_s == pytest.approx(was[policy].tokens_per_s, rel=0.06)


def test_room_is_counted_at_the_worst_moment() -> None:
    """Of requests with (left, used) tokens, those that end early give their room back in time."""
    assert vtc.most_needed([(10, 5)]) == 15
    assert vtc.most_needed([(10, 5), (2, 20)]) == 29  # as the second ends: 5 + 20 + 2 * 2
    assert vtc.most_needed([(10, 5), (10, 5)]) == 30
