"""What is likely to be in the prefix cache, and queues in the order of it, for DLPM."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from fairshare.scheduling.policy import Request
from fairshare.scheduling.queues import Key, Sorted

REMEMBERED = 16_384
"""So many prefixes are remembered, the one that was used longest ago is forgotten first."""


class Prefixes:
    """How much of a prompt is likely to be cached, from what has been served before.

    A call of an interaction repeats the one before it and its answer; requests to one application
    share its template. What is known to be cached (``Request.cached_tokens``) counts if it is more.
    """

    def __init__(self) -> None:
        self._tokens: OrderedDict[tuple[str, str, str], int] = OrderedDict()

    def served(self, request: Request) -> None:
        """It has been computed, so it is in the cache."""
        whole = request.prompt_tokens + request.produced
        self._remember(("app", "", request.app), request.system_tokens)
        if request.interaction is not None:
            self._remember(("interaction", request.tenant, request.interaction), whole)

    def match(self, request: Request) -> int:
        """Tokens at the beginning of its prompt that are likely to be cached."""
        template = self._tokens.get(("app", "", request.app), 0)
        history = 0
        if request.interaction is not None:
            key = ("interaction", request.tenant, request.interaction)
            history = self._tokens.get(key, 0)
        likely = max(min(template, request.system_tokens), history, request.cached_tokens)
        return min(likely, request.prompt_tokens)

    def _remember(self, key: tuple[str, str, str], tokens: int) -> None:
        self._tokens[key] = tokens
        self._tokens.move_to_end(key)
        if len(self._tokens) > REMEMBERED:
            self._tokens.popitem(last=False)


class PrefixQueues:
    """A queue for each tenant, the longest prefix (as known on arrival) first."""

    def __init__(self, prefixes: Prefixes) -> None:
        self._prefixes = prefixes
        self._lines: dict[str, Sorted] = {}
        self._numbers: dict[Request, Key] = {}
        self._newest = 0
        self._foremost = 0

    def append(self, request: Request) -> None:
        """It waits behind those of its tenant with a longer prefix."""
        self._newest += 1
        self._numbers[request] = (-float(self._prefixes.match(request)), self._newest)
        self._line(request).append(request)

    def prepend(self, request: Request) -> None:
        """It waits before all others of its tenant."""
        self._foremost -= 1
        self._numbers[request] = (float("-inf"), self._foremost)
        self._line(request).prepend(request)

    def remove(self, request: Request) -> bool:
        """It waits no longer; False if it did not wait."""
        if self._numbers.pop(request, None) is None:
            return False
        line = self._lines[request.tenant]
        line.remove(request)
        if not line:
            del self._lines[request.tenant]
        return True

    def has(self, tenant: str) -> bool:
        """Whether the tenant has a waiting request."""
        return tenant in self._lines

    def first(self, tenant: str) -> Request:
        """The tenant's next one; it must have one."""
        if (first := self._lines[tenant].first()) is None:
            raise KeyError(tenant)
        return first

    def __contains__(self, request: Request) -> bool:
        return request in self._numbers

    def __iter__(self) -> Iterator[Request]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def key(self, tenant: str) -> Key:
        """The place of the tenant's next one among all."""
        return self._numbers[self.first(tenant)]

    def _line(self, request: Request) -> Sorted:
        line = self._lines.get(request.tenant)
        if line is None:
            line = self._lines[request.tenant] = Sorted(lambda one: self._numbers[one][0])
        return line
