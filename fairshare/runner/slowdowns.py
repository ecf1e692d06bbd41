"""Clocks that are held down while a cell is measured: its figures are not the GPU's best."""

from __future__ import annotations

from collections import Counter

from fairshare.devices.nvml import NOT_SLOWED, GpuSample
from fairshare.devices.telemetry import GpuSampler
from fairshare.records import Phase


class SlowdownWatch:
    """A sampler that notes, of the readings in the measured window, what slowed the clocks."""

    def __init__(self, sampler: GpuSampler) -> None:
        self._sampler = sampler
        self._measuring = False
        self._seen: Counter[str] = Counter()
        self._readings = 0

    def enter(self, phase: str) -> None:
        """Note the phase of the cell that begins now."""
        self._measuring = phase == Phase.MEASURE

    def sample(self) -> GpuSample | None:
        """What the GPU says now."""
        taken = self._sampler.sample()
        if self._measuring and taken is not None and taken.slowdowns is not None:
            self._readings += 1
            if taken.slowdowns != NOT_SLOWED:
                self._seen[taken.slowdowns] += 1
        return taken

    def close(self) -> None:
        """Let go of the GPU."""
        self._sampler.close()

    @property
    def told(self) -> str | None:
        """What slowed the clocks in the window and how often it was seen; None if nothing did."""
        if not self._seen:
            return None
        what, _ = self._seen.most_common(1)[0]
        return f"in {self._seen.total()} of {self._readings} readings of its clocks {what}"
