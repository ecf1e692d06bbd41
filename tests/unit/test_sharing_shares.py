"""How a whole is divided among tenants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairshare.errors import InfeasibleError
from fairshare.sharing.plan import TenantDemand
from fairshare.sharing.shares import apportion, shares_of


def tenants(*shares: float | None) -> list[TenantDemand]:
    """Tenants t0, t1, ... with these shares."""
    return [TenantDemand(f"t{i}", "m", share=share) for i, share in enumerate(shares)]


def test_equal_parts_when_nothing_is_said() -> None:
    """Tenants without a share get equal parts."""
    assert shares_of(tenants(None, None)) == [0.5, 0.5]


def test_the_rest_is_divided_equally() -> None:
    """A given share is kept, the others divide what it leaves."""
    assert shares_of(tenants(0.5, None, None)) == [0.5, 0.25, 0.25]


def test_decimal_shares_may_sum_to_one() -> None:
    """0.7 + 0.2 + 0.1 is the whole device, whatever binary fractions make of it."""
    assert shares_of(tenants(0.7, 0.2, 0.1)) == [0.7, 0.2, 0.1]


def test_too_much_is_infeasible() -> None:
    """Shares beyond the device are refused with their sum."""
    with pytest.raises(InfeasibleError, match="120%"):
        shares_of(tenants(0.6, 0.6))


def test_nothing_left_is_infeasible() -> None:
    """A tenant that would get nothing is named."""
    with pytest.raises(InfeasibleError, match="nothing for t2"):
        shares_of(tenants(0.5, 0.5, None))


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8), st.integers(0, 120))
def test_apportion_uses_everything_and_gives_everyone_one(weights: list[int], spare: int) -> None:
    """Full shares use every unit, each part is at least one and near its ideal."""
    total = len(weights) + spare
    shares = [w / sum(weights) for w in weights]
    parts = apportion(shares, total)
    assert sum(parts) == total
    assert min(parts) >= 1
    for part, share in zip(parts, shares, strict=True):
        assert part < share * total + 1 or part == 1


def test_apportion_leaves_unused_what_nobody_claims() -> None:
    """Shares that sum to half of the cores use half of the cores."""
    assert apportion([0.25, 0.25], 8) == [2, 2]


def test_apportion_refuses_fewer_units_than_shares() -> None:
    """Nobody gets half a core."""
    with pytest.raises(ValueError, match="2 units for 3"):
        apportion([0.3, 0.3, 0.4], 2)
