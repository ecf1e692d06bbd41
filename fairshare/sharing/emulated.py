"""``mig-emulated``: MIG's capacities without MIG, by MPS percentages and memory limits.

For GPUs that have no MIG or whose driver state must not be changed. It is labelled so everywhere,
since it does not isolate what MIG isolates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fairshare.devices.device import Device
from fairshare.devices.driver import Driver
from fairshare.errors import InfeasibleError
from fairshare.records import Mark, Mode, Provenance
from fairshare.sharing.mig import granted
from fairshare.sharing.mig_facts import facts_unasked
from fairshare.sharing.mig_layout import choose
from fairshare.sharing.mps import STEPS, Mps
from fairshare.sharing.options import SharingOptions
from fairshare.sharing.plan import PartitionPlan, Slot, TenantDemand
from fairshare.sharing.shares import shares_of
from fairshare.sharing.slots import UNEVEN, plan_of
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.layouts import profiles_of, shares_in

LABEL = "mig-emulated"
NOT_ISOLATED = (
    "MIG is emulated by MPS thread percentages and memory limits: memory bandwidth, L2 cache, copy "
    "engines and faults are not isolated, and an idle neighbour's bandwidth can be used"
)


class EmulatedMig(Mps):
    """MPS clients with the SMs and the memory of the MIG profiles they stand for.

    ``why`` says why it is no real MIG and how to get that, for people.
    """

    def __init__(self, device: Device, driver: Driver, options: SharingOptions, why: str) -> None:
        super().__init__(device, driver, options)
        self.why = why

    def plan(self, device: Device, tenants: Sequence[TenantDemand]) -> PartitionPlan:
        """One slot per tenant, as large as its MIG profile; plain shares where there is no MIG.

        Raises:
            InfeasibleError: no profiles fit the shares together, or these do not add up.
        """
        facts = self._options.mig_facts or facts_unasked(device)
        notes = [NOT_ISOLATED, self.why]
        if facts.table is None:
            slots = self._by_shares(device, tenants)
        else:
            profiles = choose(facts.table, tenants, self._options.mig.layout)
            slots = [
                replace(
                    self.client_slot(
                        device, tenant, p.sm_count / facts.table.sm_count, p.memory_bytes
                    ),
                    mig_profile=p.name,
                )
                for tenant, p in zip(tenants, profiles, strict=True)
            ]
            notes.append(granted(facts.table, profiles))
        simulated = device.kind is DeviceKind.VIRTUAL
        uneven = len({slot.compute_fraction for slot in slots}) > 1
        if simulated and uneven:
            notes.append(UNEVEN)
        return plan_of(
            Mode.MIG,
            device,
            slots,
            label=LABEL,
            provenance=None if simulated else Provenance.EMULATED,
            steps=STEPS,
            notes=notes,
            marks=[Mark.UNVALIDATED] if simulated and uneven else [],
        )

    def _by_shares(self, device: Device, tenants: Sequence[TenantDemand]) -> list[Slot]:
        """Parts of a GPU that has no profiles."""
        layout = self._options.mig.layout
        if layout is None:
            shares = shares_of(tenants)
        elif profiles_of(layout):
            raise InfeasibleError(
                f"{device.name} has no MIG profiles, so none of {layout} can be emulated",
                hint="say the layout as shares: --mig-layout 3:2:1",
            )
        else:
            shares = shares_in(layout)
            if len(shares) != len(tenants):
                raise InfeasibleError(
                    f"the MIG layout {layout} is for {len(shares)} tenants, and there are "
                    f"{len(tenants)}"
                )
        return [
            self.client_slot(device, tenant, share, int(share * device.memory_bytes))
            for tenant, share in zip(tenants, shares, strict=True)
        ]
