"""Counters of the service that each tenant has got, by which the least served is next.

A tenant whose first request comes to wait is *lifted*: its counter is raised to the least of those
that wait, so that idleness is not saved up. If nobody waits, it is raised to the counter of the
tenant that was the last to have a waiting request.

Source: VTC, arXiv 2401.00588, algorithm 2. (Its artifact does not lift where nobody waits.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fairshare.scheduling.policy import Tenants
from fairshare.scheduling.queues import Key, LeastFirst, TenantQueues

FORGET_ABOVE = 1024
"""With fewer tenants than this, no counter is looked at in order to forget it."""


class Counters:
    """A counter for each tenant, in service divided by the tenant's weight.

    ``waiting`` is read only; whoever changes it calls ``enter`` when a tenant has a waiting request
    (again), and ``leave`` when its last one has gone. ``charged`` tells of each request that was
    admitted and has not ended its tenant and what it was charged, which may yet be paid back.
    """

    def __init__(
        self,
        waiting: TenantQueues,
        tenants: Tenants,
        charged: Callable[[], Iterable[tuple[str, float]]],
        *,
        lift: bool = True,
    ) -> None:
        self._waiting = waiting
        self._tenants = tenants
        self._charged = charged
        self._lifts = lift
        self._values: dict[str, float] = {}
        self._order = LeastFirst(self._key)
        self._last_left: str | None = None
        self._forget_at = FORGET_ABOVE

    def enter(self, tenant: str, *, lift: bool = True) -> None:
        """The tenant has a waiting request now; it is lifted, unless it has only come back."""
        value = self._values.get(tenant, 0.0)
        if lift and self._lifts:
            value = max(value, self.level())
        self._values[tenant] = value
        self._order.enter(tenant)

    def leave(self, tenant: str) -> None:
        """The tenant has no waiting request any more."""
        if tenant not in self._order:
            return
        self._order.leave(tenant)
        self._last_left = tenant
        if self._lifts and len(self._values) > self._forget_at:
            self._forget()

    def least(self) -> str | None:
        """The tenant with the least counter among those that wait, the earliest among equals."""
        return self._order.least()

    def second(self) -> str | None:
        """The tenant that would be the least if the least did not wait."""
        first = self._order.least()
        if first is None:
            return None
        self._order.leave(first)
        second = self._order.least()
        self._order.enter(first)
        return second

    def charge(self, tenant: str, cost: float) -> None:
        """It has got service; or, where the cost is negative, is paid back."""
        value = self._values.get(tenant, 0.0)
        self._values[tenant] = value + cost / self._tenants.weight(tenant)
        if cost < 0 and tenant in self._order:
            self._order.enter(tenant)

    def level(self) -> float:
        """To where a tenant is lifted."""
        least = self._order.least()
        tenant = self._last_left if least is None else least
        return 0.0 if tenant is None else self._values[tenant]

    def of(self, tenant: str) -> float:
        """The tenant's counter; 0 for one that is not known."""
        return self._values.get(tenant, 0.0)

    def all(self) -> dict[str, float]:
        """Every counter that is kept."""
        return dict(self._values)

    def _key(self, tenant: str) -> Key:
        return self._values[tenant], self._waiting.place(tenant)

    def _forget(self) -> None:
        """Drop counters of idle tenants that a lift would raise anyway.

        Whoever waits, now or later, has at least ``floor``: the least counter of those that wait or
        run, or left last, less all that may yet be paid back. (Those that run matter since they may
        be put back, and are not lifted then.)
        """
        kept = set(self._waiting.tenants())
        owed = 0.0
        for tenant, charged in self._charged():
            kept.add(tenant)
            owed += charged / self._tenants.weight(tenant)
        if self._last_left is not None:
            kept.add(self._last_left)
        floor = min(self.of(tenant) for tenant in kept) - owed
        self._values = {
            tenant: value
            for tenant, value in self._values.items()
            if value > floor or tenant in kept
        }
        self._forget_at = 2 * len(self._values) + FORGET_ABOVE
