"""ExFairS's rounds: whoever fared worst is moved before whoever fared best, for credit.

Source: ExFairS, AAAI-26 40(43):36271-36279, and the update at a round's end in its artifact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairshare.scheduling.experience import Experience


@dataclass(slots=True)
class Standing:
    """What a tenant carries from round to round: its priority (smaller is sooner), its credit."""

    priority: int = 0
    credit: int = 0


@dataclass(frozen=True, slots=True)
class Exchange:
    """How far apart two tenants must be to change places, and by how much they do.

    ``threshold``: the least difference of f; ``sensitivity`` times the difference, at most
    ``max_step``, is the step, of which each tenth is one place.
    """

    threshold: float = 0.1
    sensitivity: float = 1.0
    max_step: float = 0.5

    def places(self, gap: float) -> int:
        """k: by how much their priorities move."""
        tenths = 10 * min(gap * self.sensitivity, self.max_step)
        return int(tenths + 1e-9)  # 0.7 - 0.3 is four tenths, whatever it is in binary


def published(share: float, violations: float, alpha: float) -> float:
    """The published f = (1 - alpha) share + alpha violations; a large f is served sooner."""
    return (1 - alpha) * share + alpha * violations


def signed(share: float, violations: float, alpha: float) -> float:
    """The same with what a tenant got counted against it. Not in the paper."""
    return alpha * violations - (1 - alpha) * share


def exchange(
    unfairness: Mapping[str, float], standings: Mapping[str, Standing], rule: Exchange
) -> None:
    """At a round's end, pair the best off with the worst off, the next with the next, and so on.

    Each tenant is in one pair at most. The pair that is furthest apart is always that of the two
    ends, so one sort does. Among equals, the one with less credit pays and the one with more gains.
    """
    order = sorted(unfairness, key=lambda name: (unfairness[name], standings[name].credit))
    for number in range(len(order) // 2):
        low, high = order[number], order[-1 - number]
        gap = unfairness[high] - unfairness[low]
        if gap <= rule.threshold:
            break
        places = rule.places(gap)
        standings[low].priority += places
        standings[low].credit += places
        standings[high].priority -= places
        standings[high].credit -= places


def shares_and_violations(
    experiences: Mapping[str, Experience], now_s: float
) -> dict[str, tuple[float, float]]:
    """Each tenant's share of the round's service, and the share of its requests that was late.

    Tenants without a request in the round are left out. Nobody is in it if nothing was served: by
    the paper all are equal then.
    """
    total = sum(one.service for one in experiences.values())
    if total <= 0:
        return {}
    return {
        name: (one.service / total, one.violations(now_s) / one.sent)
        for name, one in experiences.items()
        if one.sent
    }
