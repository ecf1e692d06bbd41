"""Which MIG profiles a set of shares is worth."""

from __future__ import annotations

import pytest

from fairshare.devices.constants import MigProfile
from fairshare.devices.inventory import virtual_device
from fairshare.errors import InfeasibleError, PartitionError
from fairshare.sharing.mig_layout import (
    choose,
    choose_in_room,
    choose_profiles,
    creation_order,
    place,
    why_not,
)
from fairshare.sharing.mig_table import MigTable, known_table
from fairshare.sharing.plan import TenantDemand


def table_of(name: str) -> MigTable:
    """What the model of that name can be cut into."""
    table = known_table(virtual_device(name))
    assert table is not None
    return table


A100 = table_of("a100-40")


def named(*names: str, table: MigTable = A100) -> list[MigProfile]:
    """Profiles by name."""
    by_name = {profile.name: profile for profile in table.profiles}
    return [by_name[name] for name in names]


def tenants(count: int) -> list[TenantDemand]:
    """So many tenants without shares."""
    return [TenantDemand(f"t{number}", "m") for number in range(count)]


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
        ([3 / 7, 2 / 7, 1 / 7, 1 / 7], ["3g.20gb", "2g.10gb", "1g.5gb", "1g.5gb"]),
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
    profiles = named(*names)
    assert (why_not(A100, profiles) is None) is possible
    starts = place(profiles)
    assert (starts is not None) or not possible


def test_the_largest_is_made_first() -> None:
    """A small instance made early could sit where a large one must begin."""
    order = creation_order(named("1g.5gb", "3g.20gb", "2g.10gb"))
    assert [profile.name for profile in order] == ["3g.20gb", "2g.10gb", "1g.5gb"]


@pytest.mark.parametrize(
    ("gpu", "layout", "names"),
    [
        ("a100-40", "3:2:1:1", ["3g.20gb", "2g.10gb", "1g.5gb", "1g.5gb"]),
        ("a100-40", "1g.5gb,3g.20gb", ["1g.5gb", "3g.20gb"]),
        ("h200", "1g.18gb+me,1g.35gb", ["1g.18gb+me", "1g.35gb"]),
        ("rtx-pro-6000", "1:1", ["2g.48gb", "2g.48gb"]),
        ("rtx-pro-6000", "1g.24gb+me.all,1g.24gb-me", ["1g.24gb+me.all", "1g.24gb-me"]),
    ],
)
def test_a_layout_is_given_in_the_order_of_the_tenants(
    gpu: str, layout: str, names: list[str]
) -> None:
    """Weights or profiles, whatever the order in which they are then made."""
    table = table_of(gpu)
    chosen = choose(table, tenants(len(names)), layout)
    assert [profile.name for profile in chosen] == names
    starts = place(chosen)
    assert starts is not None
    taken = [s for p, start in zip(chosen, starts, strict=True) for s in range(p.memory_slices)]
    assert len(taken) <= table.memory_slices


@pytest.mark.parametrize(
    ("gpu", "layout", "reason", "offer"),
    [
        ("a100-40", "4g.20gb,4g.20gb", "8 compute slices .* has 7", "4g.20gb,3g.20gb"),
        (
            "a100-40",
            "3g.20gb,3g.20gb,1g.5gb",
            "9 memory slices .* has 8",
            "3g.20gb,2g.10gb,1g.5gb",
        ),
        ("a100-40", "1g.5gb+me,1g.5gb+me", "1g.5gb.me can exist once", "1g.5gb,1g.5gb+me"),
        (
            "rtx-pro-6000",
            "1g.24gb+me.all,1g.24gb",
            "5 decoders are needed and it has 4",
            "1g.24gb,1g.24gb",
        ),
        ("a100-40", "4g.20gb,2g.10gb,2g.10gb", "8 compute", "4g.20gb,2g.10gb,1g.10gb"),
    ],
)
def test_an_impossible_layout_says_why_and_offers_the_nearest(
    gpu: str, layout: str, reason: str, offer: str
) -> None:
    """The offer can be pasted, and can be had."""
    table = table_of(gpu)
    with pytest.raises(InfeasibleError, match=reason) as caught:
        choose(table, tenants(layout.count(",") + 1), layout)
    assert caught.value.hint == f"the nearest that fits: --mig-layout {offer}"
    assert choose(table, tenants(offer.count(",") + 1), offer)


def test_a_layout_for_other_tenants_is_infeasible() -> None:
    """Its parts are the tenants' in order, so there must be as many."""
    with pytest.raises(InfeasibleError, match="is for 3 tenants, and there are 2") as caught:
        choose(A100, tenants(2), "3:2:1")
    assert caught.value.hint == "one for these: --mig-layout 3g.20gb,3g.20gb"


def test_a_profile_that_the_gpu_lacks_is_named() -> None:
    """With those that it has."""
    with pytest.raises(InfeasibleError, match=r"no MIG profile 3g\.71gb") as caught:
        choose(A100, tenants(1), "3g.71gb")
    assert "3g.20gb" in str(caught.value.hint)


def test_too_many_tenants_get_no_offer() -> None:
    """Eight instances exist on no GPU."""
    with pytest.raises(InfeasibleError, match="fit 8 tenants") as caught:
        choose(A100, tenants(8), "1:1:1:1:1:1:1:1")
    assert caught.value.hint == "use fewer tenants, or mps"


def test_only_the_room_that_others_leave_is_used() -> None:
    """A foreign 3g at 0 leaves the upper half, where a 2g begins at 4 only."""
    (half,) = named("3g.20gb")
    assert choose_in_room(A100, [half], [(half, 0)]) == [4]
    with pytest.raises(PartitionError, match=r"3g\.20gb at 0.*leave no room") as caught:
        choose_in_room(A100, [half, half], [(half, 0)])
    assert "--mig-layout 2g.10gb,1g.10gb" in str(caught.value.hint)
