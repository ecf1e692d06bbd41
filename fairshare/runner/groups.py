"""Whom one set of servers serves: per scenario, mode, policy and split of the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fairshare.errors import InfeasibleError
from fairshare.records import Mode
from fairshare.runner.scheduling import OWN_ORDER, Scheduler
from fairshare.runner.settings import Settings
from fairshare.runner.splits import (
    check_step,
    finest_step,
    in_profiles,
    shape_of,
    split_label,
    splits,
)
from fairshare.sharing.plan import PartitionPlan
from fairshare.spec.scenario import Scenario, Tenant
from fairshare.spec.search import Search, ShareSweep


@dataclass(slots=True)
class Group:
    """Tenants that one set of servers serves, and the policies under which it does."""

    mode: Mode
    scenario: Scenario
    base_dir: Path
    tenants: list[Tenant]
    schedulers: list[Scheduler] = field(default_factory=lambda: [OWN_ORDER])
    shares: str | None = None
    """How the device is split, where a sweep tries several ways."""


Partition = Callable[[Group], PartitionPlan]
"""What would be done to the device for a group."""


def groups_of(settings: Settings) -> Iterator[Group]:
    """Per scenario and mode the sets of tenants that are served at once.

    That is all of them, but in exclusive mode those of one model: they have the device in turn.
    Mode logical is the one that has policies; those inside the engine need servers of their own.
    """
    for scenario, path in settings.scenarios:
        for mode in settings.modes:
            tenants = scenario.expanded()
            if mode is Mode.LOGICAL:
                for schedulers in _by_servers(settings.schedulers):
                    yield Group(mode, scenario, path.parent, tenants, schedulers)
                continue
            if mode is not Mode.EXCLUSIVE:
                yield Group(mode, scenario, path.parent, tenants)
                continue
            by_model: dict[tuple[str, str | None], list[Tenant]] = {}
            for tenant in tenants:
                by_model.setdefault((settings.model_of(tenant), tenant.adapter), []).append(tenant)
            for alike in by_model.values():
                yield Group(mode, scenario, path.parent, alike)


def _by_servers(schedulers: Sequence[Scheduler]) -> list[list[Scheduler]]:
    """Schedulers that need the same servers, together."""
    found: list[list[Scheduler]] = []
    for each in schedulers:
        for alike in found:
            if alike[0].in_server == each.in_server:
                alike.append(each)
                break
        else:
            found.append([each])
    return found


def by_split(group: Group, search: Search | None, partition: Partition) -> list[Group]:
    """The group at every split of the device, where these are swept and make a difference.

    Raises:
        SpecError: there are too many splits, or none.
    """
    if not isinstance(search, ShareSweep) or len(group.tenants) < 2:
        return [group]
    check_step(len(group.tenants), search.step)
    found = _at_splits(group, partition, search.step)
    if any(in_profiles(plan) for _, plan in found.values() if plan is not None):
        every = _at_splits(group, partition, finest_step(len(group.tenants)))
        found = {shape: each for shape, each in every.items() if each[1] is not None}
    return [group] if len(found) == 1 else [each for each, _ in found.values()]


def _at_splits(
    group: Group, partition: Partition, step: int
) -> dict[object, tuple[Group, PartitionPlan | None]]:
    """Groups and plans by what the plans differ in; those that cannot be, each for itself."""
    found: dict[object, tuple[Group, PartitionPlan | None]] = {}
    for split in splits(len(group.tenants), step):
        tenants = [
            tenant.model_copy(update={"share": percent / 100})
            for tenant, percent in zip(group.tenants, split, strict=True)
        ]
        scenario = group.scenario.model_copy(update={"tenants": tenants})
        named = ":".join(map(str, split))
        each = replace(group, scenario=scenario, tenants=tenants, shares=named)
        try:
            plan = partition(each)
        except InfeasibleError:
            found[split] = each, None
            continue
        labelled = replace(each, shares=split_label(plan, split))
        found.setdefault(shape_of(plan), (labelled, plan))
    return found
