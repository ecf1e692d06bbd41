"""What a tenant has experienced: how many requests it sent, and how many were answered too late."""

from __future__ import annotations

from fairshare.scheduling.policy import Request


class Experience:
    """One tenant's requests since the beginning, or since ``restart``.

    A violation is an answer that took longer than ``slo_s``, a request that got no whole answer,
    and one that has been open for longer than that: who still waits is not left out.
    """

    def __init__(self, slo_s: float) -> None:
        self.slo_s = slo_s
        self.sent = 0
        self.service = 0.0
        """What was served to it, in the unit of whoever adds to it."""
        self._violated = 0
        self._open: dict[Request, float] = {}  # by arrival, the oldest first
        self._overdue: set[Request] = set()

    def arrived(self, request: Request, now_s: float) -> None:
        """It has sent one more."""
        self.sent += 1
        self._open[request] = now_s

    def ended(self, request: Request, now_s: float, *, whole: bool) -> None:
        """One of them was answered (``whole``), or is gone without."""
        if request in self._overdue:
            self._overdue.remove(request)
            self._violated += 1
        elif (arrived_s := self._open.pop(request, None)) is not None:
            self._violated += not whole or now_s - arrived_s > self.slo_s

    def violations(self, now_s: float) -> int:
        """How many of ``sent`` were violations, or are by now."""
        while self._open:
            oldest = next(iter(self._open))
            if now_s - self._open[oldest] <= self.slo_s:
                break
            del self._open[oldest]
            self._overdue.add(oldest)
        return self._violated + len(self._overdue)

    def restart(self) -> None:
        """Begin anew; what is still open counts again."""
        self.sent = len(self._open) + len(self._overdue)
        self.service = 0.0
        self._violated = 0
