"""First come, first served: what engines do by themselves."""

from __future__ import annotations

from fairshare.scheduling.bookkeeping import Bookkeeping
from fairshare.scheduling.offer import Offer
from fairshare.scheduling.policy import Request
from fairshare.scheduling.queues import Fifo


class Fcfs(Bookkeeping[Fifo]):
    """Requests go in the order of their arrival, whoever sends them."""

    name = "fcfs"
    counts_tokens = False

    def __init__(self) -> None:
        super().__init__(Fifo())

    def head(self, now_s: float) -> Request | None:
        return self._waiting.first()


OFFER = Offer(
    name=Fcfs.name,
    says="in the order of arrival",
    make=lambda options, tenants: Fcfs(),
    aliases={"fifo": {}, "slora": {}, "FCFS": {}, "QUEUE_FCFS": {}, "QUEUE_FIFO": {}},
)
