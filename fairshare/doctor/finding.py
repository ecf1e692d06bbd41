"""What a check says: fine, a reservation, or a reason not to start."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"  # as it should be, or of no importance here
    WARN = "warn"  # runs, but figures may suffer or a part will be missing
    FAIL = "fail"  # cannot run, or would not measure what it says


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: ``says`` is what was found, ``fix`` the command that mends it."""

    name: str
    level: Level
    says: str
    fix: str | None = None


def ok(name: str, says: str) -> Finding:
    """As it should be."""
    return Finding(name, Level.OK, says)


def warn(name: str, says: str, fix: str) -> Finding:
    """A reservation."""
    return Finding(name, Level.WARN, says, fix)


def fail(name: str, says: str, fix: str) -> Finding:
    """A reason not to start."""
    return Finding(name, Level.FAIL, says, fix)


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level among them."""
    order = list(Level)
    return max((finding.level for finding in findings), key=order.index, default=Level.OK)


def failures(findings: Iterable[Finding]) -> list[Finding]:
    """Those that are reasons not to start."""
    return [finding for finding in findings if finding.level is Level.FAIL]
