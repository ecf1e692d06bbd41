"""Every way to split a device between tenants, as a sweep over shares tries them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from math import comb

from fairshare.errors import SpecError
from fairshare.sharing.plan import PartitionPlan

MOST = 200
"""Splits of one mode: each has servers of its own, and takes its time."""
_MOST_LOOKED_AT = 5000  # where shares come in profiles, nearly all of these are the same layouts
_STEPS = (1, 2, 4, 5, 10, 20, 25, 50)  # of a hundred


def splits(tenants: int, step: int) -> Iterator[tuple[int, ...]]:
    """All shares in percent that are multiples of ``step``, above 0, and sum to 100."""
    parts = 100 // step
    for cuts in combinations(range(1, parts), tenants - 1):
        edges = (0, *cuts, parts)
        yield tuple(step * (b - a) for a, b in pairwise(edges))


def check_step(tenants: int, step: int) -> None:
    """Refuse a step that gives no split, or too many to be measured.

    Raises:
        SpecError: with the step to take instead.
    """
    count = comb(100 // step - 1, tenants - 1)
    if count == 0:
        raise SpecError(
            f"--share-step {step}: {tenants} tenants cannot have at least {step} % each",
            hint="take a smaller step",
        )
    if count > MOST:
        fits = [s for s in _STEPS if 0 < comb(100 // s - 1, tenants - 1) <= MOST]
        raise SpecError(
            f"--share-step {step}: {count} splits between {tenants} tenants, each with servers of "
            "its own",
            hint=f"take --share-step {fits[0]}" if fits else "take fewer tenants",
        )


def finest_step(tenants: int) -> int:
    """The step at which layouts of profiles are looked for: as fine as can be looked through."""
    return next((s for s in _STEPS if comb(100 // s - 1, tenants - 1) <= _MOST_LOOKED_AT), 50)


def in_profiles(plan: PartitionPlan) -> bool:
    """Whether shares come in MIG profiles, of which there are few."""
    return all(slot.mig_profile is not None for slot in plan.slots)


def split_label(plan: PartitionPlan, split: tuple[int, ...]) -> str:
    """The split as people say it: ``70:30``, or the profiles."""
    if in_profiles(plan):
        return "+".join(str(slot.mig_profile) for slot in plan.slots)
    return ":".join(map(str, split))


def shape_of(plan: PartitionPlan) -> tuple[object, ...]:
    """What of a plan two splits may have in common: then they are the same one."""
    return tuple(
        (
            slot.compute_fraction,
            slot.memory_fraction,
            slot.memory_bytes,
            slot.cpu_set,
            slot.threads,
            slot.mig_profile,
        )
        for slot in plan.slots
    )
