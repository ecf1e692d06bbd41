"""Starts fleets of real vLLM servers with the tiny model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairshare.devices.device import Device
from fairshare.processes.scope import RunScope
from fairshare.records import Mode, Provenance
from fairshare.serving.fleet import Fleet, fleet
from fairshare.serving.models import ModelFacts
from fairshare.sharing.plan import PartitionPlan, Slot
from fairshare.spec.launcher import DeviceKind, Launcher

API_KEY = "key-of-this-run"


@dataclass
class VllmBench:
    """A run's scope and a way to start fleets of real servers with the tiny model."""

    scope: RunScope
    logs: Path
    launcher: Launcher
    model: ModelFacts
    events: list[Mapping[str, Any]] = field(default_factory=list)

    def fleet(
        self,
        *,
        args: Mapping[str, Any] | None = None,
        adapters: Mapping[str, str] | None = None,
        **slot: Any,
    ) -> AbstractAsyncContextManager[Fleet]:
        """One server, named ``a``, for the tenants ``a`` and ``plain``."""
        launcher = self.launcher.model_copy(update={"args": {**self.launcher.args, **(args or {})}})
        values = {"threads": 1, "memory_fraction": 0.25} | slot
        one = Slot("a", ("a", "plain"), self.model.name, adapters=adapters or {}, **values)
        device = Device(DeviceKind.CPU, "cpu", "cpu", 1 << 34)
        plan = PartitionPlan(Mode.MIG, "mig-cpu", Provenance.MEASURED_ON_CPU, device, (one,))
        models = {self.model.name: self.model}
        return fleet(plan, launcher, models, self.scope, self.logs, API_KEY)

    def names(self) -> list[str]:
        """The events so far."""
        return [event["event"] for event in self.events]
