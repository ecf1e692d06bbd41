"""Locked clocks, as a plan shows them."""

from __future__ import annotations

from dataclasses import replace

from fairshare.sharing.clocks import lock_argv, reset_argv
from fairshare.sharing.mig_table import smi_name
from fairshare.sharing.plan import PartitionPlan
from fairshare.spec.launcher import DeviceKind

_EFFECT = {DeviceKind.VIRTUAL: ", on which the simulation does not depend"}


def with_clocks(plan: PartitionPlan, clocks: str | None) -> PartitionPlan:
    """The plan with the clocks of its GPU locked (None: left to the driver).

    They define its cells: the same share at other clocks is not the same.
    """
    if clocks is None:
        return plan
    gpu = smi_name(plan.device)
    effect = _EFFECT.get(plan.device.kind, "")
    return replace(
        plan,
        steps=(*plan.steps, " ".join(lock_argv(gpu, clocks)), " ".join(reset_argv(gpu))),
        notes=(*plan.notes, f"the GPU's clocks are locked to {clocks} MHz{effect}"),
        details={**plan.details, "locked_clocks_mhz": clocks},
    )
