"""Which MIG profile each tenant gets for its share, and whether they fit together. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from fairshare.devices.constants import GpuSpec, MigProfile
from fairshare.errors import InfeasibleError

_SLACK = 1e-9


def choose_profiles(spec: GpuSpec, shares: Sequence[float]) -> list[MigProfile]:
    """The profile of each share: no more memory slices than it is worth; equal for equal shares.

    Of the combinations that can be placed, the one that grants most memory, then most SMs.

    Raises:
        InfeasibleError: a share is below the smallest slice, or no combination fits.
    """
    if not spec.mig_capable:
        raise InfeasibleError(f"{spec.product} has no MIG", hint="use mps or timeslice")
    distinct = sorted(set(shares), reverse=True)
    candidates = [_candidates(spec, share) for share in distinct]
    best: tuple[tuple[int, int], list[MigProfile]] | None = None
    for combination in product(*candidates):
        by_share = dict(zip(distinct, combination, strict=True))
        chosen = [by_share[share] for share in shares]
        score = (sum(p.memory_slices for p in chosen), sum(p.sm_count for p in chosen))
        if (best is None or score > best[0]) and fits(spec, chosen):
            best = score, chosen
    if best is None:
        raise InfeasibleError(
            f"no MIG profiles of {spec.product} fit {len(shares)} tenants together: it has "
            f"{spec.mig_compute_slices} compute and {spec.mig_memory_slices} memory slices",
            hint="use fewer tenants, or smaller shares",
        )
    return best[1]


def fits(spec: GpuSpec, profiles: Sequence[MigProfile]) -> bool:
    """Whether these instances can exist at once: slices, counts and placements."""
    if sum(p.compute_slices for p in profiles) > spec.mig_compute_slices:
        return False
    if any(profiles.count(p) > p.instances for p in profiles):
        return False
    return next(_placements(creation_order(profiles), frozenset()), None) is not None


def creation_order(profiles: Sequence[MigProfile]) -> list[MigProfile]:
    """Largest first: the driver places each as it comes, and a small one may sit in the way."""
    return sorted(profiles, key=lambda p: (p.memory_slices, p.compute_slices), reverse=True)


def _candidates(spec: GpuSpec, share: float) -> list[MigProfile]:
    """Profiles whose memory a share is worth; those with media engines only (+me) are left out."""
    found = [
        p
        for p in spec.mig_profiles
        if "+" not in p.name and p.memory_slices / spec.mig_memory_slices <= share + _SLACK
    ]
    if not found:
        smallest = min(spec.mig_profiles, key=lambda p: p.memory_slices)
        raise InfeasibleError(
            f"a share of {share:.1%} is below the smallest MIG instance of {spec.product}: "
            f"{smallest.name} has {smallest.memory_slices} of {spec.mig_memory_slices} "
            "memory slices"
        )
    return found


def _placements(profiles: Sequence[MigProfile], taken: frozenset[int]) -> Iterator[tuple[int, ...]]:
    if not profiles:
        yield ()
        return
    first, rest = profiles[0], profiles[1:]
    for start in first.starts:
        slices = frozenset(range(start, start + first.memory_slices))
        if not slices & taken:
            for others in _placements(rest, taken | slices):
                yield (start, *others)
