"""What waits: queues that can be left from the middle, and the tenant with the least key.

Every operation takes O(1), or O(log n) amortised over n tenants, whoever comes, goes or is charged.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Protocol

from fairshare.scheduling.policy import Request

Key = tuple[float, int]
"""What is compared, and a number that no other has, so that the order is always the same."""


class Waiting(Protocol):
    """The requests that wait, in some order."""

    def append(self, request: Request) -> None:
        """It waits behind those that the order puts before it."""

    def prepend(self, request: Request) -> None:
        """It waits before all others of its tenant."""

    def remove(self, request: Request) -> bool:
        """It waits no longer; False if it did not wait."""

    def __contains__(self, request: Request) -> bool: ...

    def __iter__(self) -> Iterator[Request]: ...

    def __len__(self) -> int: ...


class Fifo:
    """One queue for all, in the order of arrival."""

    def __init__(self) -> None:
        self._line: OrderedDict[Request, None] = OrderedDict()

    def append(self, request: Request) -> None:
        """It waits behind all others."""
        self._line[request] = None

    def prepend(self, request: Request) -> None:
        """It waits before all others."""
        self._line[request] = None
        self._line.move_to_end(request, last=False)

    def remove(self, request: Request) -> bool:
        """It waits no longer; False if it did not wait."""
        if request not in self._line:
            return False
        del self._line[request]
        return True

    def first(self) -> Request | None:
        """The one that is next."""
        return next(iter(self._line), None)

    def __contains__(self, request: Request) -> bool:
        return request in self._line

    def __iter__(self) -> Iterator[Request]:
        return iter(self._line)

    def __len__(self) -> int:
        return len(self._line)


class Sorted:
    """One queue for all, the least size first; of equal ones that which came first.

    What is put back goes before everything: work that was begun is finished first.
    """

    def __init__(self, size: Callable[[Request], float]) -> None:
        self._size = size
        self._heap: list[tuple[float, int, Request]] = []
        self._entries: dict[Request, tuple[float, int, Request]] = {}
        self._newest = 0
        self._foremost = 0

    def append(self, request: Request) -> None:
        """It waits behind those that are not greater."""
        self._newest += 1
        self._push((self._size(request), self._newest, request))

    def prepend(self, request: Request) -> None:
        """It waits before all others."""
        self._foremost -= 1
        self._push((float("-inf"), self._foremost, request))

    def remove(self, request: Request) -> bool:
        """It waits no longer; False if it did not wait."""
        return self._entries.pop(request, None) is not None

    def first(self) -> Request | None:
        """The one that is next."""
        heap = self._heap
        while heap and self._entries.get(heap[0][2]) is not heap[0]:
            heappop(heap)
        return heap[0][2] if heap else None

    def _push(self, entry: tuple[float, int, Request]) -> None:
        if len(self._heap) > 2 * len(self._entries) + 64:  # most of it has left
            self._heap = list(self._entries.values())
            heapify(self._heap)
        self._entries[entry[2]] = entry
        heappush(self._heap, entry)

    def __contains__(self, request: Request) -> bool:
        return request in self._entries

    def __iter__(self) -> Iterator[Request]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class TenantQueues:
    """A queue for each tenant with waiting requests, in the order of arrival."""

    def __init__(self) -> None:
        self._lines: dict[str, OrderedDict[Request, int]] = {}
        self._length = 0
        self._newest = 0
        self._foremost = 0

    def append(self, request: Request) -> None:
        """It waits behind all others of its tenant."""
        self._newest += 1
        self._line(request.tenant)[request] = self._newest
        self._length += 1

    def prepend(self, request: Request) -> None:
        """It waits before all others of its tenant."""
        self._foremost -= 1
        line = self._line(request.tenant)
        line[request] = self._foremost
        line.move_to_end(request, last=False)
        self._length += 1

    def remove(self, request: Request) -> bool:
        """It waits no longer; False if it did not wait."""
        line = self._lines.get(request.tenant)
        if line is None or request not in line:
            return False
        del line[request]
        if not line:
            del self._lines[request.tenant]
        self._length -= 1
        return True

    def first(self, tenant: str) -> Request:
        """The tenant's next one; it must have one."""
        return next(iter(self._lines[tenant]))

    def place(self, tenant: str) -> int:
        """A number for the tenant's next one: less than that of any that came after it.

        It rises as the tenant's requests leave, and falls only when one is put back.
        """
        return next(iter(self._lines[tenant].values()))

    def has(self, tenant: str) -> bool:
        """Whether the tenant has a waiting request."""
        return tenant in self._lines

    def tenants(self) -> Iterator[str]:
        """Those with waiting requests."""
        return iter(self._lines)

    def of(self, tenant: str) -> Iterator[Request]:
        """What waits of one tenant, its next one first."""
        return iter(self._lines.get(tenant, ()))

    def _line(self, tenant: str) -> OrderedDict[Request, int]:
        line = self._lines.get(tenant)
        if line is None:
            line = self._lines[tenant] = OrderedDict()
        return line

    def __contains__(self, request: Request) -> bool:
        line = self._lines.get(request.tenant)
        return line is not None and request in line

    def __iter__(self) -> Iterator[Request]:
        for line in self._lines.values():
            yield from line

    def __len__(self) -> int:
        return self._length


class LeastFirst:
    """The tenant with the least key, of those that were entered.

    ``key`` is asked whenever it matters. A key that has grown costs nothing until its tenant comes
    to the top, and is put right there; one that has **fallen** must be told by entering the tenant
    again. So a counter that rises with each token is not sorted with each token.
    """

    def __init__(self, key: Callable[[str], Key]) -> None:
        self._key = key
        # Keys are flat in their entries, since tuples within tuples compare half as fast.
        self._heap: list[tuple[float, int, str]] = []
        self._entries: dict[str, tuple[float, int, str]] = {}  # of each tenant, the one that counts

    def enter(self, tenant: str) -> None:
        """The tenant takes part; or it does already, and its key may have fallen."""
        if len(self._heap) > 2 * len(self._entries) + 64:  # most of it counts no more
            self._heap = list(self._entries.values())
            heapify(self._heap)
        entry = self._entries[tenant] = (*self._key(tenant), tenant)
        heappush(self._heap, entry)

    def leave(self, tenant: str) -> None:
        """The tenant takes no part any more, if it did."""
        self._entries.pop(tenant, None)

    def least(self) -> str | None:
        """The tenant with the least key; None if nobody takes part."""
        heap = self._heap
        while heap:
            top = heap[0]
            tenant = top[2]
            if self._entries.get(tenant) is not top:
                heappop(heap)
                continue
            entry = (*self._key(tenant), tenant)
            if entry == top:
                return tenant
            self._entries[tenant] = entry
            heapreplace(heap, entry)
        return None

    def __contains__(self, tenant: str) -> bool:
        return tenant in self._entries

    def __len__(self) -> int:
        return len(self._entries)
