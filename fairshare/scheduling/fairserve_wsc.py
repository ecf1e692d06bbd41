"""FairServe's weighted service counter (WSC): service in typical requests of the application.

A request with L tokens of input, of which L_sys come from the application's template, costs
S = 1 (L - L_sys) + 1 L_sys + 2 L_out; a typical one of its application costs A, the same of its
typical tokens. A user is charged S / A, divided by his weight: whoever asks what his application
normally asks pays 1, however long its prompts are.

Source: FairServe, arXiv 2411.15997, and its artifact's schedulers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from fairshare.scheduling.policy import Request

INPUT_PRICE = 1.0
SYSTEM_PRICE = 1.0
OUTPUT_PRICE = 2.0


@dataclass(slots=True)
class Typical:
    """The tokens of an application's typical request: the user's, the template's, the answer's."""

    input_tokens: float
    system_tokens: float
    output_tokens: float

    def cost(self) -> float:
        """A, the service of a typical request; at least 1, so that it can be divided by."""
        return max(1.0, service(self.input_tokens, self.system_tokens, self.output_tokens))


def service(input_tokens: float, system_tokens: float, output_tokens: float) -> float:
    """S, the price of these tokens."""
    return INPUT_PRICE * input_tokens + SYSTEM_PRICE * system_tokens + OUTPUT_PRICE * output_tokens


@dataclass(slots=True)
class _Seen:
    """What has been seen of one application: sums over arrivals, and over answers."""

    arrivals: int = 0
    input_tokens: int = 0
    system_tokens: int = 0
    answers: int = 0
    output_tokens: int = 0


class Apps:
    """What is typical of each application: as given, else the means of what has been seen.

    Input and system tokens are means over all arrivals, output tokens over all complete answers;
    until there is one, an answer is expected to reach its request's limit.
    """

    def __init__(self, given: Mapping[str, Typical]) -> None:
        self._given = given
        self._seen: dict[str, _Seen] = {}

    def arrived(self, request: Request) -> None:
        """One more request of its application."""
        seen = self._seen.get(request.app)
        if seen is None:
            seen = self._seen[request.app] = _Seen()
        seen.arrivals += 1
        seen.input_tokens += request.prompt_tokens - request.system_tokens
        seen.system_tokens += request.system_tokens

    def answered(self, request: Request) -> None:
        """One more complete answer of its application."""
        seen = self._seen.get(request.app)
        if seen is not None:
            seen.answers += 1
            seen.output_tokens += request.produced

    def typical(self, request: Request) -> Typical:
        """What a request of this one's application is expected to need, as known now."""
        if (given := self._given.get(request.app)) is not None:
            return given
        seen = self._seen[request.app]
        return Typical(
            seen.input_tokens / seen.arrivals,
            seen.system_tokens / seen.arrivals,
            seen.output_tokens / seen.answers if seen.answers else request.max_output_tokens,
        )


class Counter(ABC):
    """When a request is charged, and how much, before the division by its user's weight."""

    def __init__(self, apps: Apps) -> None:
        self._apps = apps

    @abstractmethod
    def admission(self, request: Request) -> float:
        """The charge when it is admitted."""

    @abstractmethod
    def tokens(self, request: Request, tokens: int) -> float:
        """The charge when it has got so many more output tokens."""

    @abstractmethod
    def end(self, request: Request, charged: float) -> float:
        """What is added, or given back, when it ends and so much has been charged already."""


class Components(Counter):
    """Each kind of tokens by its own typical number, at admission and as tokens come.

    The earlier systems of the artifact (``fs_fair``, ``fs_fair_wsc`` and others).
    """

    def admission(self, request: Request) -> float:
        typical = self._apps.typical(request)
        own = (request.prompt_tokens - request.system_tokens) / max(1.0, typical.input_tokens)
        return INPUT_PRICE * own + SYSTEM_PRICE * request.system_tokens / max(
            1.0, typical.system_tokens
        )

    def tokens(self, request: Request, tokens: int) -> float:
        return OUTPUT_PRICE * tokens / max(1.0, self._apps.typical(request).output_tokens)

    def end(self, request: Request, charged: float) -> float:
        return 0.0


class Expectation(Counter):
    """S / A, when the request ends: the final system of the artifact."""

    def admission(self, request: Request) -> float:
        return 0.0

    def tokens(self, request: Request, tokens: int) -> float:
        return 0.0

    def end(self, request: Request, charged: float) -> float:
        own = request.prompt_tokens - request.system_tokens
        total = service(own, request.system_tokens, request.produced)
        return total / self._apps.typical(request).cost() - charged


class Precharged(Expectation):
    """The expected 1 at admission, corrected to S / A at the end.

    Not in the artifact. With ``Expectation`` a user's counter stands still while his requests are
    admitted, so one user may fill the whole batch; here it moves at once.
    """

    def admission(self, request: Request) -> float:
        return 1.0


COUNTERS: Mapping[str, type[Counter]] = {
    "components": Components,
    "expectation": Expectation,
    "precharged": Precharged,
}
"""By the name that the option ``counter`` gives them."""
