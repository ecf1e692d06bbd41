"""Whether a mode can be had at all, tried before anything is measured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.errors import PartitionError
from fairshare.records import Mode, Provenance
from fairshare.runner import trial
from fairshare.runner.plan import Deployment, RunPlan
from fairshare.sharing.plan import PartitionPlan
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.loading import load_launcher

GPU = Device(DeviceKind.CUDA, "GPU-1", "NVIDIA H200", 141 * 1024**3, index=0)


class _Shares:
    """A partitioner that can refuse to be put back."""

    def __init__(self, *, stays: bool) -> None:
        self._stays = stays

    @asynccontextmanager
    async def apply(self, plan: PartitionPlan, _scope: object) -> AsyncIterator[PartitionPlan]:
        """Make the shares, and put them back unless they stay."""
        yield plan
        if self._stays:
            raise PartitionError("the instance is still there")


def _failing(
    monkeypatch: pytest.MonkeyPatch, *, refuses: Mode | None, stays: bool = False
) -> dict[Mode, str]:
    async def probed(plan: PartitionPlan, _driver: Driver) -> dict[str, object]:
        if plan.mode is refuses:
            raise PartitionError("a process cannot use the GPU")
        return {}

    monkeypatch.setattr(trial, "probe_shares", probed)
    monkeypatch.setattr(trial, "partitioner_of", lambda *_: _Shares(stays=stays))
    launcher, modes = load_launcher("virtual")[0], (Mode.TIMESLICE, Mode.MPS)
    plans = (PartitionPlan(mode, mode.value, Provenance.MEASURED, GPU, ()) for mode in modes)
    plan = RunPlan(tuple(Deployment(each.label, each, launcher, ()) for each in plans))
    settings, scope = MagicMock(driver=Driver()), MagicMock(private_dir=Path())
    scope.labelled.return_value = {}
    return asyncio.run(trial.failing_modes(settings, plan, scope))


def test_a_mode_whose_daemon_takes_no_client_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is told, and the other modes are not touched by it."""
    found = _failing(monkeypatch, refuses=Mode.MPS)
    assert found == {Mode.MPS: "a process cannot use the GPU"}
    assert _failing(monkeypatch, refuses=None) == {}


def test_a_device_that_cannot_be_put_back_is_no_mere_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would spoil every later cell ends the run."""
    with pytest.raises(PartitionError, match="still there"):
        _failing(monkeypatch, refuses=None, stays=True)
