"""Which MIG profiles a set of shares is worth."""

from __future__ import annotations

import pytest

from fairshare.devices.constants import MigProfile, gpu_spec
from fairshare.errors import InfeasibleError
from fairshare.sharing.mig_layout import choose_profiles, creation_order, fits

A100 = gpu_spec("a100-40")


def named(*names: str) -> list[MigProfile]:
    """Profiles of the A100-40 by name."""
    by_name = {profile.name: profile for profile in A100.mig_profiles}
    return [by_name[name] for name in names]


@pytest.mark.parametrize(
    ("shares", "names"),
    [
        ([1.0], ["7g.40gb"]),
        ([1 / 2] * 2, ["3g.20gb"] * 2),
        ([1 / 3] * 3, ["2g.10gb"] * 3),
        ([1 / 4] * 4, ["1g.10gb"] * 4),
        ([1 / 7] * 7, ["1g.5gb"] * 7),
        ([0.5, 0.25, 0.25], ["3g.20gb", "2g.10gb", "2g.10gb"]),
        ([0.4, 0.6], ["2g.10gb", "4g.20gb"]),
        ([0.75, 0.25], ["4g.20gb", "2g.10gb"]),
    ],
)
def test_shares_get_the_largest_profiles_that_fit_together(
    shares: list[float], names: list[str]
) -> None:
    """Equal shares get equal profiles, none more memory than its share."""
    assert [profile.name for profile in choose_profiles(A100, shares)] == names


def test_a_share_below_the_smallest_slice_is_infeasible() -> None:
    """The message says what the smallest slice is."""
    with pytest.raises(InfeasibleError, match=r"10\.0% is below .*1g\.5gb has 1 of 8"):
        choose_profiles(A100, [0.9, 0.1])


def test_eight_tenants_do_not_fit_seven_compute_slices() -> None:
    """Eight eighths of the memory exist, an eighth compute slice does not."""
    with pytest.raises(InfeasibleError, match="8 tenants"):
        choose_profiles(A100, [1 / 8] * 8)


def test_no_mig_is_infeasible() -> None:
    """An L4 has no MIG, and the message says so."""
    with pytest.raises(InfeasibleError, match="NVIDIA L4 has no MIG"):
        choose_profiles(gpu_spec("l4"), [0.5, 0.5])


@pytest.mark.parametrize(
    ("names", "possible"),
    [
        (["3g.20gb", "3g.20gb"], True),
        (["4g.20gb", "3g.20gb"], True),
        (["4g.20gb", "2g.10gb", "1g.5gb"], True),
        (["2g.10gb"] * 3 + ["1g.5gb"], True),
        (["2g.10gb"] + ["1g.5gb"] * 5, True),
        (["4g.20gb", "4g.20gb"], False),
        (["3g.20gb", "3g.20gb", "1g.5gb"], False),
        (["7g.40gb", "1g.5gb"], False),
        (["2g.10gb"] * 4, False),
    ],
)
def test_published_combinations(names: list[str], possible: bool) -> None:
    """NVIDIA's rules: what may stand side by side on an A100 and what may not."""
    assert fits(A100, named(*names)) is possible


def test_the_largest_is_made_first() -> None:
    """A small instance made early could sit where a large one must begin."""
    order = creation_order(named("1g.5gb", "3g.20gb", "2g.10gb"))
    assert [profile.name for profile in order] == ["3g.20gb", "2g.10gb", "1g.5gb"]
