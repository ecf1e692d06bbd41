"""Clients of one MPS daemon, all of whose speeds are found at once."""

from __future__ import annotations

import random

import pytest

from fairshare.virtual.clients import Client, step_times
from fairshare.virtual.physics import PUBLISHED, Demand
from fairshare.virtual.rules import MpsClient, Neighbour, SharingKind

SETTLED = 60


def demands(count: int) -> list[Demand]:
    """Steps from decoding to prefill, one of them held up by its host."""
    rng = random.Random(count)
    found = [
        Demand(rng.uniform(0, 4e-3), rng.uniform(0, 4e-3), rng.uniform(1e-4, 2e-3))
        for _ in range(count)
    ]
    found[0].host_s = 0.02
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("total_share", [1.0, 3.0])
def test_all_at_once_is_the_rule_of_real_time_servers(count: int, total_share: float) -> None:
    """Steps settle on those that each client's own rule gives beside all the others."""
    share = total_share / count
    crowded = count > 1 and total_share > 1
    scale = 1 / total_share if crowded else 1.0
    every = demands(count)
    clients = [Client.of(demand, share * scale) for demand in every]
    for _ in range(SETTLED):
        steps = step_times(clients, PUBLISHED.oversubscription if crowded else 1.0)
    seen = [
        Neighbour(SharingKind.MPS, demand, step_s, share)
        for demand, step_s in zip(every, steps, strict=True)
    ]
    for number, demand in enumerate(every):
        others = seen[:number] + seen[number + 1 :]
        assert steps[number] == pytest.approx(MpsClient(share).step_s(demand, others), rel=1e-9)


def test_what_is_granted_at_once_is_never_more_than_there_is() -> None:
    """Clients that do nothing but draw bandwidth get an equal part of all of it."""
    for count in (2, 5, 30):
        clients = [Client.of(Demand(0.0, 6e-3, 0.0), 1 / count) for _ in range(count)]
        for step_s in step_times(clients):
            assert count * 6e-3 / step_s == pytest.approx(1.0)
