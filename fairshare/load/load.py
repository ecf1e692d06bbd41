"""What is asked of the load generator, and what it says of how that went."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fairshare.load.target import Target
from fairshare.spec.scenario import Tenant
from fairshare.workload.contents import Adjustments
from fairshare.workload.requests import PlannedRequest


@dataclass(slots=True)
class TenantLoad:
    """One tenant's part: where to, how, and what.

    ``concurrency`` is the number in flight of a closed-loop tenant; None means open loop, where
    every request has an ``intended_ns``, counted from the barrier, rising. With rounds, the plan
    is cut: the first ``warmup_s`` of it are the warm-up, each ``round_s`` after that is a round.
    ``requests`` begins the plan, in whichever process drives the tenant; ``adjustments`` counts
    while it is drawn.
    """

    tenant: Tenant
    target: Target
    concurrency: int | None
    requests: Callable[[], Iterator[PlannedRequest]]
    adjustments: Adjustments = field(default_factory=Adjustments)


@dataclass(slots=True)
class DriveReport:
    """How it went. ``window_ns`` is [start, end) of the measured window on the records' clock.

    ``client`` is the load generator's account of itself (see :mod:`fairshare.load.selfcheck`), with
    what of the requests had to be changed to fit, by tenant.
    """

    window_ns: tuple[int, int]
    end_ns: int
    stopped: bool
    client: dict[str, Any] = field(default_factory=dict)


def adjusted_requests(loads: Sequence[TenantLoad]) -> dict[str, Any]:
    """What was changed, for the report."""
    return {load.tenant.name: asdict(load.adjustments) for load in loads}
