"""FairServe's throttling (OIT): only under overload, and only where an interaction begins.

A limit on requests per minute throws away calls in the middle of a chain, and with them all the
work of the calls before. FairServe looks at its limits only when the next request does not fit,
and throttles it only if it is the first call of its interaction; later calls are at most delayed.

Source: FairServe, arXiv 2411.15997, and its artifact's schedulers.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from typing import ClassVar

from fairshare.scheduling.policy import Refusal, Request

WINDOW_S = 60.0
"""Limits count arrivals in a sliding window of so many seconds."""

REMEMBERED = 65_536
"""So many throttled interactions are remembered, the oldest forgotten first."""


class Limit:
    """At most ``limit`` arrivals of a user, or of an application, in any window; 0: any number."""

    def __init__(self, what: str, limit: int) -> None:
        self.limit = limit
        self._what = what
        self._arrivals: dict[str, deque[float]] = {}

    def note(self, key: str, now_s: float) -> None:
        """One has come, and was let in. Only as many are kept as the limit asks for."""
        if not self.limit:
            return
        if (arrivals := self._arrivals.get(key)) is None:
            arrivals = self._arrivals[key] = deque(maxlen=self.limit + 1)
        arrivals.append(now_s)

    def at_arrival(self, key: str, now_s: float) -> Refusal | None:
        """Why one more may not come now, if the window before now is full."""
        return self._full(key, 0, now_s)

    def at_newest(self, key: str, now_s: float) -> Refusal | None:
        """Why the newest should not have come, if the window before it was full."""
        return self._full(key, 1, now_s)

    def _full(self, key: str, newer: int, now_s: float) -> Refusal | None:
        """Whether ``limit`` arrivals lie in the window, not counting the ``newer`` last ones."""
        arrivals = self._arrivals.get(key)
        if arrivals is None or len(arrivals) < self.limit + newer:
            return None
        end_s = arrivals[-1] if newer else now_s
        if end_s - arrivals[-self.limit - newer] >= WINDOW_S:
            return None
        free_s = arrivals[-self.limit] + WINDOW_S
        reason = f"{self._what} {key!r} sent {self.limit} requests within {WINDOW_S:g} s"
        return Refusal(reason, max(0.0, free_s - now_s))


Thrown = list[tuple[Request, Refusal]]
"""Those that are thrown out, and why."""


class Throttle:
    """Who is thrown out, and when; this one never throws anybody out."""

    needs_limit: ClassVar[bool] = False
    """Without any limit it would do nothing, so there has to be one."""

    def __init__(self, user: Limit, app: Limit) -> None:
        if self.needs_limit and not (user.limit or app.limit):
            raise ValueError("this throttling needs a user_limit or an app_limit")
        self._user = user
        self._app = app

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        """A request has come: why it is refused, or None, and then it counts."""
        self._user.note(request.tenant, now_s)
        self._app.note(request.app, now_s)
        return None

    def overload(self, head: Request, now_s: float) -> Thrown:
        """The head, of which nothing was served yet, does not fit."""
        del head, now_s
        return []

    def left(self, request: Request, *, admitted: bool) -> None:
        """A request waits no longer: it is served, or it is gone."""


class AtArrival(Throttle):
    """Over the limit, a request is refused as it comes, like requests per minute anywhere."""

    needs_limit = True

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        full = self._user.at_arrival(request.tenant, now_s)
        full = full or self._app.at_arrival(request.app, now_s)
        return full or super().arrive(request, now_s)


class AtOverload(Throttle):
    """Over the limit, the head is thrown out when it does not fit, whichever call it is."""

    needs_limit = True

    def overload(self, head: Request, now_s: float) -> Thrown:
        refusal = self._over_limit(head, now_s)
        return [(head, refusal)] if refusal else []

    def _over_limit(self, head: Request, now_s: float) -> Refusal | None:
        full = self._user.at_newest(head.tenant, now_s)
        return full or self._app.at_newest(head.app, now_s)


class AtBoundary(AtOverload):
    """The same for first calls alone; with its first call an interaction's later ones go too."""

    needs_limit = False

    def __init__(self, user: Limit, app: Limit) -> None:
        super().__init__(user, app)
        self._thrown: OrderedDict[tuple[str, str], Refusal] = OrderedDict()
        self._later: dict[tuple[str, str], dict[Request, None]] = {}

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        if request.interaction is None:
            return super().arrive(request, now_s)
        key = (request.tenant, request.interaction)
        if request.call == 1:
            self._thrown.pop(key, None)  # it is tried again
        elif (refusal := self._thrown.get(key)) is not None:
            return refusal
        else:
            self._later.setdefault(key, {})[request] = None
        return super().arrive(request, now_s)

    def overload(self, head: Request, now_s: float) -> Thrown:
        if head.call != 1 or (refusal := self._over_limit(head, now_s)) is None:
            return []
        if self._tolerated(head):
            return []
        if head.interaction is None:
            return [(head, refusal)]
        key = (head.tenant, head.interaction)
        self._thrown[key] = refusal
        if len(self._thrown) > REMEMBERED:
            self._thrown.popitem(last=False)
        return [(each, refusal) for each in (head, *self._later.get(key, ()))]

    def left(self, request: Request, *, admitted: bool) -> None:
        if request.interaction is None or request.call == 1:
            return
        key = (request.tenant, request.interaction)
        if (later := self._later.get(key)) is not None:
            later.pop(request, None)
            if not later:
                del self._later[key]

    def _tolerated(self, head: Request) -> bool:
        """Whether it stays although its user or its application is over the limit."""
        del head
        return False


class WithDebt(AtBoundary):
    """A user over the limit first runs into debt, one for each request, as far as the limit again.

    Each of his requests that is served pays one back.
    """

    needs_limit = True
    pays_back: ClassVar[bool] = True

    def __init__(self, user: Limit, app: Limit) -> None:
        super().__init__(user, app)
        self._most = user.limit or app.limit
        self._debts: Counter[str] = Counter()
        self._counted: set[Request] = set()

    def left(self, request: Request, *, admitted: bool) -> None:
        super().left(request, admitted=admitted)
        self._counted.discard(request)
        if admitted and self.pays_back and self._debts[request.tenant] > 0:
            self._debts[request.tenant] -= 1

    def _tolerated(self, head: Request) -> bool:
        if self._debts[head.tenant] > self._most:
            return False
        if head not in self._counted:
            self._counted.add(head)
            self._debts[head.tenant] += 1
        return True


class WithLastingDebt(WithDebt):
    """The same, and a debt is never paid back."""

    pays_back = False


THROTTLES: Mapping[str, type[Throttle]] = {
    "never": Throttle,
    "arrival": AtArrival,
    "overload": AtOverload,
    "interaction": AtBoundary,
    "interaction-debt": WithDebt,
    "interaction-lasting-debt": WithLastingDebt,
}
"""By the name that the option ``throttle`` gives them."""
