"""A deployment in virtual time: the same plan and command lines, but no processes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fairshare.devices.constants import GpuSpec
from fairshare.scheduling.policy import SchedulingPolicy
from fairshare.sharing.plan import PartitionPlan, Slot
from fairshare.sharing.slots import Binding, binding_of
from fairshare.virtual.clock import Clock
from fairshare.virtual.contention import Alone, Contended, MpsClients, Partition, TimeSlices
from fairshare.virtual.course import Lane
from fairshare.virtual.engine import Engine, Limits
from fairshare.virtual.memory import plan_memory
from fairshare.virtual.models import virtual_model
from fairshare.virtual.physics import Constants, Costs, drawable_bandwidth
from fairshare.virtual.rules import MpsClient, SharingKind, TimeSliced
from fairshare.virtual.simulated import SimulatedServer


@dataclass(frozen=True, slots=True)
class GpuFigures:
    """A device's peaks, as the physics takes them."""

    peak_flops: float
    bandwidth_bytes_s: float

    @classmethod
    def of(cls, gpu: GpuSpec) -> GpuFigures:
        """Those of a GPU of the catalogue."""
        return cls(gpu.fp16_tflops * 1e12, gpu.memory_gb_s * 1e9)


@dataclass(frozen=True, slots=True)
class SlotMemory:
    """What the driver tells a slot's server: all there is, and what of it is free."""

    total_bytes: int
    free_bytes: int


def deploy(
    clock: Clock,
    gpu: GpuSpec,
    plan: PartitionPlan,
    *,
    options: Mapping[str, argparse.Namespace],
    memory: Mapping[str, SlotMemory],
    policy: Callable[[], SchedulingPolicy],
    constants: Constants,
) -> dict[str, SimulatedServer]:
    """A simulated server for each slot, by the slot's name.

    ``options`` are the servers' command lines, as :func:`fairshare.virtual.options.parser` reads
    them; ``policy`` makes the policy of each.

    Raises:
        StartError: a model does not fit its slot.
    """
    partitions = _partitions(clock, gpu, plan, options, constants)
    return {
        slot.name: _server(
            clock,
            gpu,
            slot,
            options[slot.name],
            memory[slot.name],
            partition=partitions[slot.name],
            policy=policy(),
            constants=constants,
        )
        for slot in plan.slots
    }


def _partitions(
    clock: Clock,
    gpu: GpuSpec,
    plan: PartitionPlan,
    options: Mapping[str, argparse.Namespace],
    constants: Constants,
) -> dict[str, Partition]:
    """One for each MIG instance; else one for all."""
    slots = plan.slots
    if len(slots) == 1 or binding_of(slots[0]) is Binding.MIG:
        return {slot.name: Alone(clock) for slot in slots}
    shared: Partition
    if binding_of(slots[0]) is Binding.MPS:
        shared = MpsClients(clock, constants)
    elif any(options[slot.name].enforce_eager for slot in slots):
        shared = Contended(clock, SharingKind.TIMESLICE)
    else:
        shared = TimeSlices(clock, constants.timeslice_tax)
    return {slot.name: shared for slot in slots}


def _server(
    clock: Clock,
    gpu: GpuSpec,
    slot: Slot,
    options: argparse.Namespace,
    memory: SlotMemory,
    *,
    partition: Partition,
    policy: SchedulingPolicy,
    constants: Constants,
) -> SimulatedServer:
    model = virtual_model(slot.model)
    planned = plan_memory(
        model,
        total_bytes=memory.total_bytes,
        free_bytes=memory.free_bytes,
        max_model_len=options.max_model_len or model.max_model_len,
        utilization=options.gpu_memory_utilization,
        kv_bytes=options.kv_cache_memory_bytes,
    )
    costs = Costs.of(GpuFigures.of(gpu), model, constants, eager=options.enforce_eager)
    limits = Limits(options.max_num_seqs, options.max_num_batched_tokens, planned.kv_blocks)
    lane, rule = _lane(gpu, slot, costs, constants)
    return SimulatedServer(
        clock, partition, Engine(limits, policy), lane, rule, front_end_s=options.front_end_s
    )


def _lane(
    gpu: GpuSpec, slot: Slot, costs: Costs, constants: Constants
) -> tuple[Lane, TimeSliced | MpsClient]:
    """How fast a slot's server is with nobody beside it, and the rule for when somebody is."""
    if binding_of(slot) is Binding.MPS:
        share = slot.compute_fraction
        lane = Lane(costs, constants, share, drawable_bandwidth(share, constants))
        return lane, MpsClient(share, constants)
    if binding_of(slot) is Binding.MIG:
        profile = next(p for p in gpu.mig_profiles if p.name == slot.mig_profile)
        costs = costs.within(
            profile.sm_count / gpu.sm_count, profile.memory_slices / gpu.mig_memory_slices
        )
    return Lane(costs, constants), TimeSliced(constants)
