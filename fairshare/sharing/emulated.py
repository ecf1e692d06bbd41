"""``mig-emulated``: MIG's capacities without MIG, by MPS percentages and memory limits.

For real GPUs that have no MIG or whose driver state must not be changed. It is labelled so
everywhere, since it does not isolate what MIG isolates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fairshare.devices.constants import spec_of_product
from fairshare.devices.device import Device
from fairshare.records import Mode, Provenance
from fairshare.sharing.mig import granted
from fairshare.sharing.mig_layout import choose_profiles
from fairshare.sharing.mps import STEPS, Mps
from fairshare.sharing.plan import PartitionPlan, TenantDemand
from fairshare.sharing.shares import shares_of
from fairshare.sharing.slots import plan_of

LABEL = "mig-emulated"
NOT_ISOLATED = (
    "MIG is emulated by MPS thread percentages and memory limits: memory bandwidth, L2 cache, copy "
    "engines and faults are not isolated, and an idle neighbour's bandwidth can be used"
)
HOW_TO_GET_MIG = "--allow-gpu-changes makes real MIG instances where the GPU has MIG"


class EmulatedMig(Mps):
    """MPS clients with the SMs and the memory of the MIG profiles they stand for."""

    def plan(self, device: Device, tenants: Sequence[TenantDemand]) -> PartitionPlan:
        """One slot per tenant, as large as its MIG profile; plain shares where there is no MIG.

        Raises:
            InfeasibleError: no profiles fit the shares together, or these do not add up.
        """
        shares = shares_of(tenants)
        spec = spec_of_product(device.name)
        notes = [NOT_ISOLATED]
        if spec is None or not spec.mig_capable:
            slots = [
                self.client_slot(device, tenant, share, int(share * device.memory_bytes))
                for tenant, share in zip(tenants, shares, strict=True)
            ]
        else:
            profiles = choose_profiles(spec, shares)
            slots = [
                replace(
                    self.client_slot(
                        device, tenant, profile.sm_count / spec.sm_count, profile.memory_bytes
                    ),
                    mig_profile=profile.name,
                )
                for tenant, profile in zip(tenants, profiles, strict=True)
            ]
            notes += [granted(spec, profiles), HOW_TO_GET_MIG]
        return plan_of(
            Mode.MIG,
            device,
            slots,
            label=LABEL,
            provenance=Provenance.EMULATED,
            steps=STEPS,
            notes=notes,
        )
