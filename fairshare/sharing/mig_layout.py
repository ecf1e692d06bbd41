"""Which MIG profile each tenant gets, where it lies, and why a layout cannot be. Pure.

Instances already there (``taken``) are respected: only the room they leave is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement, product

from fairshare.devices.constants import MigProfile
from fairshare.errors import InfeasibleError, PartitionError
from fairshare.sharing.mig_table import MigTable
from fairshare.sharing.plan import TenantDemand
from fairshare.sharing.shares import shares_of
from fairshare.spec.layouts import profiles_of, shares_in

_SLACK = 1e-9
_MEDIA = {1: "decoders", 2: "encoders", 3: "JPEG engines", 4: "optical-flow engines"}
Placed = tuple[MigProfile, int]


def choose(
    table: MigTable,
    tenants: Sequence[TenantDemand],
    layout: str | None = None,
    taken: Sequence[Placed] = (),
) -> list[MigProfile]:
    """The profile of each tenant: by the layout if there is one, else by the tenants' shares.

    Raises:
        InfeasibleError: it cannot be, with the reason and the nearest layout that can.
    """
    if layout is None:
        return choose_profiles(table, shares_of(tenants), taken)
    parts = layout.count(",") + layout.count(":") + 1
    if parts != len(tenants):
        instead = choose_profiles(table, shares_of(tenants), taken)
        raise InfeasibleError(
            f"the MIG layout {layout} is for {parts} tenants, and there are {len(tenants)}",
            hint=f"one for these: {_flag(instead)}",
        )
    names = profiles_of(layout)
    if names is None:
        return choose_profiles(table, shares_in(layout), taken)
    by_name = {profile.name: profile for profile in table.profiles}
    if unknown := next((name for name in names if name not in by_name), None):
        raise InfeasibleError(
            f"{table.product} has no MIG profile {unknown}", hint="it has " + ", ".join(by_name)
        )
    chosen = [by_name[name] for name in names]
    if reason := why_not(table, chosen, taken):
        targets = [(p.compute_slices, p.memory_slices) for p in chosen]
        raise InfeasibleError(
            f"the MIG layout {layout} does not fit {table.product}: {reason}",
            hint=_offer(table, targets, taken, chosen),
        )
    return chosen


def choose_profiles(
    table: MigTable, shares: Sequence[float], taken: Sequence[Placed] = ()
) -> list[MigProfile]:
    """The profile of each share: no more slices than it is worth; equal for equal shares.

    A share is worth a profile if it covers its compute slices or its memory slices: three of seven
    compute slices come with half of the memory. Of the combinations that can be placed, the one
    that grants most memory, then most SMs.

    Raises:
        InfeasibleError: a share is below the smallest slice, or no combination fits.
    """
    distinct = sorted(set(shares), reverse=True)
    best: tuple[tuple[int, int], list[MigProfile]] | None = None
    candidates = [_worth(table, share) for share in distinct]
    few_enough = len(shares) <= max(profile.instances for profile in plain(table))
    for combination in product(*candidates) if few_enough else ():
        by_share = dict(zip(distinct, combination, strict=True))
        chosen = [by_share[share] for share in shares]
        score = (sum(p.memory_slices for p in chosen), sum(p.sm_count for p in chosen))
        if (best is None or score > best[0]) and why_not(table, chosen, taken) is None:
            best = score, chosen
    if best is None:
        free = " in the room that other instances leave" if taken else ""
        raise InfeasibleError(
            f"no MIG profiles of {table.product} fit {len(shares)} tenants together{free}: it has "
            f"{table.compute_slices} compute and {table.memory_slices} memory slices",
            hint=_offer(table, _targets(table, shares), taken),
        )
    return best[1]


def plain(table: MigTable) -> list[MigProfile]:
    """Profiles without a suffix: those with more or fewer media engines are made on request."""
    return [profile for profile in table.profiles if profile.name.endswith("gb")]


def why_not(
    table: MigTable, profiles: Sequence[MigProfile], taken: Sequence[Placed] = ()
) -> str | None:
    """Why these instances cannot exist at once, in words; None if they can."""
    all_of_them = [*profiles, *(profile for profile, _ in taken)]
    compute = sum(p.compute_slices for p in all_of_them)
    if compute > table.compute_slices:
        return f"{compute} compute slices are needed and it has {table.compute_slices}"
    for profile, count in Counter(all_of_them).items():
        if count > profile.instances:
            times = "once" if profile.instances == 1 else f"{profile.instances} times"
            return f"{profile.name} can exist {times} only"
    if reason := _media_short(table, all_of_them):
        return reason
    memory = sum(p.memory_slices for p in all_of_them)
    if memory > table.memory_slices:
        return f"{memory} memory slices are needed and it has {table.memory_slices}"
    if place(profiles, taken) is None:
        rules = "; ".join(
            f"{p.name} takes {p.memory_slices} memory slices from {_either(p.starts)}"
            for p in creation_order(list(dict.fromkeys(all_of_them)))
        )
        return f"they overlap wherever they are put: {rules}"
    return None


def place(profiles: Sequence[MigProfile], taken: Sequence[Placed] = ()) -> list[int] | None:
    """A memory slice for each profile to begin at, none over another; None if there is none."""
    order = sorted(
        range(len(profiles)),
        key=lambda i: (profiles[i].memory_slices, profiles[i].compute_slices),
        reverse=True,
    )
    used = frozenset(slice_ for profile, start in taken for slice_ in _slices(profile, start))
    starts = next(_placements([profiles[i] for i in order], used), None)
    if starts is None:
        return None
    by_index = dict(zip(order, starts, strict=True))
    return [by_index[i] for i in range(len(profiles))]


def choose_in_room(
    table: MigTable, profiles: Sequence[MigProfile], taken: Sequence[Placed]
) -> list[int]:
    """Where to put each profile beside the instances that are there.

    Raises:
        PartitionError: there is not enough room, with the nearest layout that has it.
    """
    reason = why_not(table, profiles, taken)
    starts = place(profiles, taken) if reason is None else None
    if starts is None:
        names = ", ".join(f"{profile.name} at {start}" for profile, start in taken)
        targets = [(p.compute_slices, p.memory_slices) for p in profiles]
        raise PartitionError(
            f"the GPU has MIG instances that this run did not make ({names}), which leave no room: "
            f"with {' + '.join(p.name for p in profiles)}, {reason}",
            hint=f"{_offer(table, targets, taken, profiles)}; or destroy them (fairshare clean, if "
            "they are of a run that was killed)",
        )
    return starts


def creation_order(profiles: Sequence[MigProfile]) -> list[MigProfile]:
    """Largest first, as NVIDIA advises."""
    return sorted(profiles, key=lambda p: (p.memory_slices, p.compute_slices), reverse=True)


def nearest(
    table: MigTable,
    targets: Sequence[tuple[float, float]],
    taken: Sequence[Placed] = (),
    among: Sequence[MigProfile] = (),
) -> list[MigProfile] | None:
    """The feasible layout nearest to so many compute and memory slices per tenant, if any.

    ``among`` are profiles to consider beside the plain ones, and to keep where that is as near.
    """
    candidates = creation_order(list(dict.fromkeys([*plain(table), *among])))
    if len(targets) > max(profile.instances for profile in candidates):
        return None
    order = sorted(range(len(targets)), key=lambda i: (targets[i][1], targets[i][0]), reverse=True)
    best: tuple[tuple[float, int], list[MigProfile]] | None = None
    for combination in combinations_with_replacement(candidates, len(targets)):
        by_index = dict(zip(order, combination, strict=True))
        chosen = [by_index[i] for i in range(len(targets))]
        far = sum(
            abs(p.compute_slices - compute) / table.compute_slices
            + abs(p.memory_slices - memory) / table.memory_slices
            for p, (compute, memory) in zip(chosen, targets, strict=True)
        )
        kept = sum((Counter(chosen) & Counter(among)).values())
        score = (round(far, 9), -kept)
        if (best is None or score < best[0]) and why_not(table, chosen, taken) is None:
            best = score, chosen
    return best[1] if best else None


def _offer(
    table: MigTable,
    targets: Sequence[tuple[float, float]],
    taken: Sequence[Placed],
    among: Sequence[MigProfile] = (),
) -> str:
    found = nearest(table, targets, taken, among)
    if found is None:
        return "use fewer tenants, or mps" + (", or another GPU" if taken else "")
    return f"the nearest that fits: {_flag(found)}"


def _flag(profiles: Sequence[MigProfile]) -> str:
    return "--mig-layout " + ",".join(profile.name for profile in profiles)


def _targets(table: MigTable, shares: Sequence[float]) -> list[tuple[float, float]]:
    return [(share * table.compute_slices, share * table.memory_slices) for share in shares]


def _worth(table: MigTable, share: float) -> list[MigProfile]:
    found = [
        p
        for p in plain(table)
        if p.memory_slices / table.memory_slices <= share + _SLACK
        or p.compute_slices / table.compute_slices <= share + _SLACK
    ]
    if not found:
        smallest = min(plain(table), key=lambda p: p.memory_slices)
        raise InfeasibleError(
            f"a share of {share:.1%} is below the smallest MIG instance of {table.product}: "
            f"{smallest.name} has {smallest.memory_slices} of {table.memory_slices} "
            "memory slices"
        )
    return found


def _media_short(table: MigTable, profiles: Sequence[MigProfile]) -> str | None:
    """Profiles with ``+me`` take media engines that others then lack."""
    if not any("+me" in profile.name for profile in profiles):
        return None
    for index, what in _MEDIA.items():
        there = max(profile.engines[index] for profile in table.profiles)
        needed = sum(profile.engines[index] for profile in profiles)
        if needed > there:
            return f"{needed} {what} are needed and it has {there}"
    return None


def _slices(profile: MigProfile, start: int) -> range:
    return range(start, start + profile.memory_slices)


def _either(starts: Sequence[int]) -> str:
    *some, last = map(str, starts)
    return f"{', '.join(some)} or {last}" if some else last


def _placements(profiles: Sequence[MigProfile], used: frozenset[int]) -> Iterator[tuple[int, ...]]:
    if not profiles:
        yield ()
        return
    first, rest = profiles[0], profiles[1:]
    for start in first.starts:
        slices = frozenset(_slices(first, start))
        if not slices & used:
            for others in _placements(rest, used | slices):
                yield (start, *others)
