"""Which cells ``--only`` and ``--exclude`` mean."""

from __future__ import annotations

import pytest

from fairshare.errors import SpecError
from fairshare.runner.plan import RunPlan
from fairshare.runner.selection import Selection


def _meant(plan: RunPlan, only: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> set[str]:
    kept = plan.without(Selection(only, exclude).left_out(plan))
    return {cell.key.slug for cell in kept.cells}


def test_a_glob_is_about_names(plan: RunPlan) -> None:
    """A pattern without terms matches slugs and whole ids; several add up."""
    assert _meant(plan, ("s_mps_*",)) == {f"s_mps_c{c}_r{r}" for c in (1, 4) for r in (1, 2)}
    cell = plan.cells[0]
    assert _meant(plan, (cell.id, "*_mps_c4_r2")) == {cell.key.slug, "s_mps_c4_r2"}


def test_terms_must_all_hold(plan: RunPlan) -> None:
    """Terms of one pattern are joined, patterns are alternatives, and values are globs."""
    assert _meant(plan, ("mode=mps,concurrency=4",)) == {"s_mps_c4_r1", "s_mps_c4_r2"}
    assert _meant(plan, ("mode=l*, run=1", "mode=mps,run=2,concurrency=1")) == {
        "s_logical_c1_r1", "s_logical_c4_r1", "s_mps_c1_r2",
    }  # fmt: skip


def test_what_is_excluded_wins(plan: RunPlan) -> None:
    """A cell that both flags match is left out; a deployment without cells is gone."""
    assert _meant(plan, ("run=1",), ("mode=mps",)) == {"s_logical_c1_r1", "s_logical_c4_r1"}
    kept = plan.without(Selection((), ("mode=mps",)).left_out(plan))
    assert {d.plan.mode.value for d in kept.deployments} == {"logical"}


@pytest.mark.parametrize(
    ("only", "exclude", "message", "hint"),
    [
        (("run=3",), (), "--only run=3: no cell matches", "run=1|2"),
        ((), ("s_mig_*",), "--exclude s_mig_*: no cell matches", "s_logical_c1_r1"),
        (("mods=mps",), (), "'mods=mps' is not TERM=VALUE", "scenario, mode"),
        (("mode=",), (), "'mode=' is not TERM=VALUE", "scenario, mode"),
        (("run=1",), ("run=1",), "leave no cell", "mode=logical|mps"),
    ],
)
def test_a_pattern_in_vain_says_what_there_is(
    plan: RunPlan, only: tuple[str, ...], exclude: tuple[str, ...], message: str, hint: str
) -> None:
    """A slip in a pattern must not quietly run nothing, or everything."""
    with pytest.raises(SpecError) as caught:
        Selection(only, exclude).left_out(plan)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
