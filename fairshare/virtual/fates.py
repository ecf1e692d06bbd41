"""What the failure knobs do to a server: how it fails to start, and how it fails at work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fairshare.virtual.failing import fails, take
from fairshare.virtual.memory import StartError
from fairshare.virtual.physics import Demand
from fairshare.virtual.rules import Neighbour, Rule

OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
_SLOWLY = 10.0
# Does not go when asked, as an engine that has lost its parent; nobody's for longer than that.
_CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"


class Fate(StrEnum):
    """What becomes of a server at work, by the name of its knob."""

    DIES = "server_dies_after"  # at once and without a word
    HANGS = "server_hangs_after"  # no step ends any more; /health says 200
    BREAKS = "server_breaks_after"  # the engine dies; each stream gets an error, then [DONE]
    RUNS_OUT = "server_out_of_memory_after"  # the same, and the log says why


@dataclass(frozen=True, slots=True)
class Doom:
    """A fate that comes when a server has generated so many tokens."""

    fate: Fate
    after_tokens: int


def fail_to_start() -> None:
    """What the knobs want to happen before a server has begun anything.

    Raises:
        StartError: it is not to start.
    """
    if fails("server_dies_at_start"):
        raise StartError("RuntimeError: simulated failure (server_dies_at_start)")
    if fails("server_out_of_memory"):
        raise StartError(f"{OUT_OF_MEMORY} (simulated failure)")
    if fails("server_leaks_child"):
        subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def doom_of_knobs() -> Doom | None:
    """What is to become of this server at work, if anything.

    Raises:
        StartError: a knob's value is no number.
    """
    for fate in Fate:
        if (value := take(fate)) is not None:
            return Doom(fate, round(_number(fate, value or "1")))
    return None


def slowed(rule: Rule) -> Rule:
    """The rule, or, where the knob is on, one by which everything takes longer.

    Raises:
        StartError: the knob's value is no number.
    """
    value = take("server_slow")
    return rule if value is None else _Slow(rule, _number("server_slow", value or str(_SLOWLY)))


@dataclass(frozen=True, slots=True)
class _Slow:
    rule: Rule
    factor: float

    def step_s(self, demand: Demand, neighbours: Sequence[Neighbour]) -> float:
        return self.factor * self.rule.step_s(demand, neighbours)


def _number(knob: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise StartError(f"ValueError: {knob}={value}: not a positive number")
    return number
