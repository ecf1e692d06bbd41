"""What a request costs: h(x, y) of its input and output tokens, monotone in both.

Source: VTC, arXiv 2401.00588 (sections 4 and 5); the constants of ``Profiled`` are those that its
artifact fitted on a 7B model with 24 GB.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass


class Cost(ABC):
    """A cost function."""

    @abstractmethod
    def of(self, input_tokens: float, output_tokens: float) -> float:
        """h(x, y)."""

    def more(self, input_tokens: float, before: float, after: float) -> float:
        """h(x, after) - h(x, before): what further output tokens cost."""
        return self.of(input_tokens, after) - self.of(input_tokens, before)


@dataclass(frozen=True, slots=True)
class Linear(Cost):
    """h = w_p x + w_q y, in weighted tokens."""

    input_price: float = 1.0
    output_price: float = 2.0

    def of(self, input_tokens: float, output_tokens: float) -> float:
        return self.input_price * input_tokens + self.output_price * output_tokens

    def more(self, input_tokens: float, before: float, after: float) -> float:
        return self.output_price * (after - before)


@dataclass(frozen=True, slots=True)
class Profiled(Cost):
    """h = a x + b y + c x y + d y^2 + e: a request's share of a full batch's time, in ms."""

    a: float = 0.21001891
    b: float = 0.10075395
    c: float = 0.0039868
    d: float = 0.00324733
    e: float = 1.14601454

    def of(self, input_tokens: float, output_tokens: float) -> float:
        x, y = input_tokens, output_tokens
        return self.a * x + self.b * y + self.c * x * y + self.d * y * y + self.e
