"""How a whole is divided among tenants. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fairshare.errors import InfeasibleError
from fairshare.sharing.plan import TenantDemand

_SLACK = 1e-9  # shares are written in decimals: 0.7 + 0.2 + 0.1 is a little more than 1


def shares_of(tenants: Sequence[TenantDemand]) -> list[float]:
    """Each tenant's fraction of the device: its own, or an equal part of what the others leave.

    Raises:
        InfeasibleError: the shares that are given exceed the device, or leave nothing to the rest.
    """
    given = sum(t.share for t in tenants if t.share is not None)
    without = sum(t.share is None for t in tenants)
    if given > 1 + _SLACK:
        raise InfeasibleError(f"the tenants' shares sum to {given:.0%} of the device")
    left = max(0.0, 1 - given)
    if without and left <= _SLACK:
        names = ", ".join(t.name for t in tenants if t.share is None)
        raise InfeasibleError(f"the other tenants' shares leave nothing for {names}")
    return [t.share if t.share is not None else left / without for t in tenants]


def apportion(shares: Sequence[float], total: int) -> list[int]:
    """Whole units of ``total`` by share: at least one each, then by largest remainder.

    Shares that sum to less than 1 leave units unused; the sum never exceeds ``total``.

    Raises:
        ValueError: fewer units than shares.
    """
    if total < len(shares):
        raise ValueError(f"{total} units for {len(shares)} shares")
    ideal = [share * total for share in shares]
    parts = [max(1, math.floor(amount + _SLACK)) for amount in ideal]
    budget = max(len(shares), math.floor(sum(ideal) + _SLACK))

    def owed(index: int) -> float:
        return ideal[index] - parts[index]

    while sum(parts) < budget:
        parts[max(range(len(parts)), key=owed)] += 1
    while sum(parts) > budget:  # those raised to one pushed the sum up: take from the richest
        parts[min((i for i, part in enumerate(parts) if part > 1), key=owed)] -= 1
    return parts
