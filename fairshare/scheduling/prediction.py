"""How many tokens a request will produce, guessed before it does."""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import Protocol

from fairshare.scheduling.policy import Request

REMEMBERED_TENANTS = 100_000
"""Averages of so many tenants are kept; who was answered longest ago is forgotten first."""


class Predictor(Protocol):
    """Guesses a request's output tokens."""

    def tokens(self, request: Request) -> float | None:
        """The guess; None if there is nothing to guess by."""

    def learn(self, request: Request) -> None:
        """A request was answered completely, with so many tokens as it has ``produced``."""


class NoGuess:
    """Never guesses."""

    def tokens(self, request: Request) -> float | None:
        """None."""
        del request
        return None

    def learn(self, request: Request) -> None:
        """Passed over."""


class TenantAverage:
    """A moving average over the answers of the request's tenant.

    The first answer of y tokens sets it, each further one moves it to (4 p + y) / 5.
    (The VTC artifact's predictor.)
    """

    def __init__(self) -> None:
        self._averages: OrderedDict[str, float] = OrderedDict()

    def tokens(self, request: Request) -> float | None:
        """The tenant's average; None before its first answer."""
        return self._averages.get(request.tenant)

    def learn(self, request: Request) -> None:
        """The average moves."""
        before = self._averages.get(request.tenant, float(request.produced))
        self._averages[request.tenant] = (4 * before + request.produced) / 5
        self._averages.move_to_end(request.tenant)
        if len(self._averages) > REMEMBERED_TENANTS:
            self._averages.popitem(last=False)


class Oracle:
    """Knows the truth y, or is wrong by at most a fraction d: uniform in [y (1 - d), y (1 + d)].

    Only a request that says what it will produce (``output_tokens``) can be guessed.
    """

    def __init__(self, error_fraction: float, seed: int) -> None:
        self._error_fraction = error_fraction
        self._random = random.Random(seed)  # noqa: S311

    def tokens(self, request: Request) -> float | None:
        """The truth, or near it; None where it is not known."""
        if request.output_tokens is None:
            return None
        error = self._random.uniform(-self._error_fraction, self._error_fraction)
        return request.output_tokens * (1 + error)

    def learn(self, request: Request) -> None:
        """Nothing to learn."""


def predictor(kind: str, error_fraction: float, seed: int) -> Predictor:
    """The one of that name: ``average``, ``oracle``, or any other, which never guesses."""
    if kind == "average":
        return TenantAverage()
    if kind == "oracle":
        return Oracle(error_fraction, seed)
    return NoGuess()
