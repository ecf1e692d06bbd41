"""All policies by name.

A policy is one file with its class, the frozen dataclass of its options (if it has any) and what it
offers to users, ``OFFER`` (see :mod:`fairshare.scheduling.offer`)::

    OFFER = Offer(
        name="rpm",
        says="at most so many requests of a tenant in a minute, in the order of arrival",
        make=lambda options, tenants: Rpm(options),
        options=RpmOptions,
        aliases={"lshare_fair": {}, "strict-rpm": {"limit": 5}},  # each with the options it means
    )

To add one: import its module below and put its ``OFFER`` into ``OFFERS``. Nothing else knows a
policy by name. A file with several policies may offer several.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairshare.scheduling import (
    dlpm,
    drr,
    edf,
    exfairs,
    fairserve,
    fcfs,
    justitia,
    lcf,
    round_robin,
    rpm,
    sjf,
    slo_greedy,
    tpm,
    vtc,
)
from fairshare.scheduling.offer import Offer, read_options
from fairshare.scheduling.policy import SchedulingPolicy, Tenants

OFFERS: tuple[Offer, ...] = (
    fcfs.OFFER,
    round_robin.OFFER,
    rpm.OFFER,
    tpm.OFFER,
    lcf.OFFER,
    drr.OFFER,
    vtc.OFFER,
    fairserve.OFFER,
    exfairs.OFFER,
    exfairs.SIGNED_OFFER,
    edf.OFFER,
    sjf.OFFER,
    slo_greedy.OFFER,
    dlpm.OFFER,
    justitia.OFFER,
)
"""In the order in which they are listed to users."""


def policy_for(
    name: str, options: Mapping[str, Any] | None = None, tenants: Tenants | None = None
) -> SchedulingPolicy:
    """A new policy of that name (or of one of its aliases), with its options, nobody waiting.

    Raises:
        ValueError: there is no such policy, or it has no such option; the text says what there is.
    """
    offer, meant = _find(name)
    read = read_options(offer, {**meant, **(options or {})})
    return offer.make(read, tenants or Tenants())


def names() -> tuple[str, ...]:
    """The policies, each by its own name."""
    return tuple(offer.name for offer in OFFERS)


def aliases() -> dict[str, str]:
    """Other names that are understood, mostly those of research artifacts, and whose they are."""
    return {alias: offer.name for offer in OFFERS for alias in offer.aliases}


def _find(name: str) -> tuple[Offer, Mapping[str, Any]]:
    for offer in OFFERS:
        if name == offer.name:
            return offer, {}
        if name in offer.aliases:
            return offer, offer.aliases[name]
    raise ValueError(
        f"there is no policy {name!r}; there is: {', '.join(names())}"
        f" (and as other names: {', '.join(aliases())})"
    )
