"""Scenarios changed by a question: what if there were more tenants, or another split?"""

from __future__ import annotations

from collections.abc import Sequence

from fairshare.errors import SpecError
from fairshare.spec.loading import validate
from fairshare.spec.scenario import Scenario


def multiplied(scenario: Scenario, times: int) -> Scenario:
    """Every tenant so many times; what each was given of the device is divided among them.

    Raises:
        SpecError: the tenants share a trace, which has one part for each of them.
    """
    if scenario.sharers():
        raise SpecError(
            f"{scenario.name}: the tenants share a trace, which cannot be had {times} times",
            hint="multiply its rates instead: --load-scale",
        )
    tenants = [
        {
            **tenant.model_dump(exclude_unset=True),
            "count": tenant.count * times,
            "share": None if tenant.share is None else tenant.share / times,
        }
        for tenant in scenario.tenants
    ]
    return validate({**scenario.model_dump(exclude_unset=True), "tenants": tenants}, Scenario)


def split(scenario: Scenario, parts: Sequence[float]) -> Scenario:
    """The device given out in proportion to ``parts``, one for each tenant in order.

    Raises:
        SpecError: there are more or fewer tenants than parts.
    """
    alone = scenario.expanded()
    if len(alone) != len(parts):
        raise SpecError(
            f"{scenario.name} has {len(alone)} tenants, and the device is split into {len(parts)}",
            hint="one part for each of " + ", ".join(tenant.name for tenant in alone),
        )
    whole = sum(parts)
    tenants = [
        {**tenant.model_dump(exclude_unset=True), "share": part / whole}
        for tenant, part in zip(alone, parts, strict=True)
    ]
    return validate({**scenario.model_dump(exclude_unset=True), "tenants": tenants}, Scenario)
