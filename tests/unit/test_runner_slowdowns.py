"""Clocks that are held down while a cell is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fairshare.devices.nvml import NOT_SLOWED, GpuSample
from fairshare.records import Phase
from fairshare.runner.slowdowns import SlowdownWatch

HOT = "the driver slows it down for its heat"


@dataclass
class Sampler:
    """Says what it is told to say."""

    slowdowns: list[str | None] = field(default_factory=list)

    def sample(self) -> GpuSample | None:
        """The next of them."""
        return GpuSample(gpu_utilisation=0.5, slowdowns=self.slowdowns.pop(0))

    def close(self) -> None:
        """Nothing to let go of."""


def _watched(*phases: tuple[Phase, Sequence[str | None]]) -> str | None:
    sampler = Sampler([each for _, told in phases for each in told])
    watch = SlowdownWatch(sampler)
    for phase, told in phases:
        watch.enter(phase)
        for _ in told:
            watch.sample()
    return watch.told


def test_only_the_measured_window_counts() -> None:
    """A GPU that was hot in the warm-up does not mark the figures."""
    assert (
        _watched((Phase.WARMUP, [HOT]), (Phase.MEASURE, [NOT_SLOWED]), (Phase.DRAIN, [HOT])) is None
    )


def test_what_slowed_it_is_told_with_how_often() -> None:
    """Of the readings that the driver answered; a driver that does not tell is no slowdown."""
    told = _watched((Phase.MEASURE, [HOT, NOT_SLOWED, None, HOT]))
    assert told == f"in 2 of 3 readings of its clocks {HOT}"
    assert _watched((Phase.MEASURE, [None])) is None
