"""What a plausibility check finds, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """A figure that cannot be, and the arithmetic that says so."""

    check: str
    """Which limit: ``first token``, ``memory bandwidth``, ..."""
    tenant: str | None
    """Whose figure; None of what belongs to all."""
    text: str
    """What was stated, what is possible, and how that follows."""
    factor: float | None = None
    """How many times beyond the limit; None where there is no measure."""

    def __str__(self) -> str:
        who = f"{self.tenant}: " if self.tenant is not None else ""
        return f"{who}{self.check}: {self.text}"


@dataclass(frozen=True, slots=True)
class Plausibility:
    """What became of holding a cell against what is possible."""

    violations: tuple[Violation, ...] = ()
    unchecked: str | None = None
    """Why it could not be held against the device's limits; None where it was."""


@dataclass(frozen=True, slots=True)
class Assumed:
    """What to hold figures against where a result folder does not say, or says another name."""

    device: str | None = None
    model: str | None = None
    bandwidth_gb_s: float | None = None
    """Of a CPU's memory, in 1e9 bytes per second: nothing tells it."""


NOTHING_ASSUMED = Assumed()
NOTHING_FOUND = Plausibility()
