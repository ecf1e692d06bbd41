"""Requests per minute: a quota of each tenant, beyond which requests are refused; then FCFS.

Not work-conserving: it refuses also where there is room. What is left is served in the order of
arrival, so a tenant below its quota still waits behind the others.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from fairshare.scheduling.fcfs import Fcfs
from fairshare.scheduling.offer import Offer, option
from fairshare.scheduling.policy import Refusal, Request


@dataclass(frozen=True, slots=True)
class RpmOptions:
    """The quota."""

    limit: int = option(20, "accepted requests of a tenant in any window", least=1)
    window_s: float = option(60.0, "seconds that are counted", above=0)


class Rpm(Fcfs):
    """At most ``limit`` accepted requests of a tenant in any window; refused ones do not count."""

    name = "rpm"

    def __init__(self, options: RpmOptions) -> None:
        super().__init__()
        self._options = options
        self._accepted: OrderedDict[str, deque[float]] = OrderedDict()  # who came last is last
        self._newest_s = 0.0

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        self._newest_s = now_s
        self._forget(now_s)
        limit, window_s = self._options.limit, self._options.window_s
        times = self._accepted.get(request.tenant)
        if times is not None and len(times) == limit and now_s - times[0] < window_s:
            reason = f"tenant {request.tenant!r} sent {limit} requests within {window_s:g} s"
            return Refusal(reason, times[0] + window_s - now_s)
        super().arrive(request, now_s)
        if times is None:
            times = self._accepted[request.tenant] = deque(maxlen=limit)
        times.append(now_s)
        self._accepted.move_to_end(request.tenant)
        return None

    def counters(self) -> dict[str, float]:
        """Accepted requests that were in the window when the newest one came."""
        newest_s, window_s = self._newest_s, self._options.window_s
        return {
            tenant: float(sum(newest_s - time_s < window_s for time_s in times))
            for tenant, times in self._accepted.items()
        }

    def _forget(self, now_s: float) -> None:
        """Drop tenants whose newest request is older than the window."""
        while self._accepted:
            tenant, times = next(iter(self._accepted.items()))
            if now_s - times[-1] < self._options.window_s:
                break
            del self._accepted[tenant]


OFFER = Offer(
    name=Rpm.name,
    says="a quota of requests per minute for each tenant, then the order of arrival",
    make=lambda options, tenants: Rpm(options),
    options=RpmOptions,
    aliases={"lshare_fair": {}},
)
