"""Which part of the simulated GPU this process got, found as the CUDA driver would find it.

The environment decides: ``CUDA_VISIBLE_DEVICES=MIG-...`` names an instance,
``CUDA_MPS_PIPE_DIRECTORY`` with a live daemon makes the process an MPS client; without either it
is time-sliced with whoever else is there. As with the real driver, a wrong pipe directory fails
open: the process runs without MPS and without limits.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairshare.virtual.mps_protocol import (
    PARTITION_ENV,
    Limits,
    RefusedError,
    client_limits,
    join_as_client,
)
from fairshare.virtual.physics import PUBLISHED, Constants
from fairshare.virtual.rules import MpsClient, Partition, Rule, SharingKind, TimeSliced
from fairshare.virtual.state import STATE_ENV, GpuFacts, gpu_facts, mig_devices, read_state

GIB = 1024**3


class NoDeviceError(Exception):
    """The environment names no device that this process could use."""


@dataclass(frozen=True, slots=True)
class ProcessShare:
    """What the driver gave this process.

    ``memory_total`` is what the driver reports as the device's total (the instance under MIG, the
    whole GPU under an MPS cap), ``memory_cap`` the MPS limit. ``connection`` keeps an MPS client
    registered for as long as it is open.
    """

    gpu: GpuFacts
    kind: SharingKind
    partition: Partition
    partition_id: int
    sm_share: float
    memory_total: int
    memory_cap: int | None
    device_uuid: str
    state_dir: Path | None = None
    connection: socket.socket | None = None

    @property
    def label(self) -> str:
        """``mig``, ``mps`` or ``timeslice``."""
        return "mig" if self.partition_id and self.kind is SharingKind.TIMESLICE else self.kind

    def rule(self, constants: Constants = PUBLISHED) -> Rule:
        """The sharing rule inside our partition."""
        if self.kind is SharingKind.MPS:
            return MpsClient(self.sm_share, constants)
        return TimeSliced(constants)

    def report(self) -> dict[str, Any]:
        """The share in the form in which it can be verified from outside."""
        return {
            "sharing": self.label,
            "compute_fraction": self.partition.sm_share * self.sm_share,
            "bandwidth_fraction": self.partition.bandwidth_share,
            "memory_bytes": self.memory_cap or self.memory_total,
            "device_uuid": self.device_uuid,
        }


def find_share(env: Mapping[str, str], gpu_name: str) -> ProcessShare:
    """The share that ``env`` gives; without a simulated driver, the whole GPU ``gpu_name``.

    Raises:
        NoDeviceError: the environment hides every device or names one that does not exist.
        SpecError: there is no GPU called ``gpu_name``.
    """
    state_dir = env.get(STATE_ENV)
    if not state_dir:
        return _whole(_catalogue_facts(gpu_name), None)
    try:
        state = read_state(Path(state_dir))
    except (OSError, ValueError) as error:
        raise NoDeviceError(f"{STATE_ENV}={state_dir} is no simulated GPU ({error})") from error
    share = _visible(state, Path(state_dir), env.get("CUDA_VISIBLE_DEVICES"))
    return _with_mps(share, env)


def _catalogue_facts(name: str) -> GpuFacts:
    from fairshare.devices.constants import gpu_spec  # noqa: PLC0415  (only without a state)

    spec = gpu_spec(name)
    return GpuFacts(
        name=spec.product,
        uuid=f"virtual:{spec.name}",
        peak_flops=spec.fp16_tflops * 1e12,
        bandwidth_bytes_s=spec.memory_gb_s * 1e9,
        sm_count=spec.sm_count,
        memory_bytes=spec.memory_bytes,
        mig_memory_slices=spec.mig_memory_slices,
    )


def _whole(gpu: GpuFacts, state_dir: Path | None) -> ProcessShare:
    return ProcessShare(
        gpu=gpu,
        kind=SharingKind.TIMESLICE,
        partition=Partition(),
        partition_id=0,
        sm_share=1.0,
        memory_total=gpu.memory_bytes,
        memory_cap=None,
        device_uuid=gpu.uuid,
        state_dir=state_dir,
    )


def _visible(state: Mapping[str, Any], state_dir: Path, visible: str | None) -> ProcessShare:
    gpu = gpu_facts(state)
    wanted = "0" if visible is None else visible.split(",")[0].strip()
    devices = mig_devices(state)
    if wanted.startswith("MIG-"):
        devices = [device for device in devices if device.uuid == wanted]
    elif wanted not in ("0", gpu.uuid):
        devices = []
        wanted = ""
    elif state["mig_mode"]["current"] != "Enabled":
        return _whole(gpu, state_dir)
    if not devices:
        raise NoDeviceError("No CUDA GPUs are available")
    device = devices[0]  # CUDA uses one MIG device only: the first that it finds
    profile = device.profile
    return ProcessShare(
        gpu=gpu,
        kind=SharingKind.TIMESLICE,
        partition=Partition(
            profile["sm"] / gpu.sm_count, profile["memory_slices"] / gpu.mig_memory_slices
        ),
        partition_id=device.gi * 16 + device.ci + 1,
        sm_share=1.0,
        memory_total=round(profile["memory_gib"] * GIB),
        memory_cap=None,
        device_uuid=device.uuid,
        state_dir=state_dir,
    )


def _with_mps(share: ProcessShare, env: Mapping[str, str]) -> ProcessShare:
    pipe_dir = Path(env.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps")  # noqa: S108  # CUDA's
    wanted = client_limits(env, (share.gpu.uuid, share.device_uuid))
    try:
        joined = join_as_client(pipe_dir, os.getpid(), wanted, env.get(PARTITION_ENV))
    except RefusedError as error:
        raise NoDeviceError(f"CUDA error: {error}") from None
    if joined is None:
        return share
    connection, limits = joined
    return ProcessShare(
        gpu=share.gpu,
        kind=SharingKind.MPS,
        partition=share.partition,
        partition_id=share.partition_id,
        sm_share=_fraction(limits),
        memory_total=share.memory_total,
        memory_cap=limits.memory_bytes,
        device_uuid=share.device_uuid,
        state_dir=share.state_dir,
        connection=connection,
    )


def _fraction(limits: Limits) -> float:
    return (limits.thread_percentage or 100.0) / 100
