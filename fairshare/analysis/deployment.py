"""What a cell's servers were, as far as limits follow from it: device, model, share, cache."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from fairshare.analysis.limits import Hardware, Served, known_model, weight_bits
from fairshare.analysis.violations import Assumed
from fairshare.devices.constants import GpuSpec, gpu_spec, spec_of_product
from fairshare.errors import Location, ResultsError
from fairshare.records import Mode
from fairshare.results import StoredCell, layout
from fairshare.spec.launcher import DeviceKind
from fairshare.virtual.models import virtual_model

_YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it is there
_NOT_ITS_OWN = ("cpu_offload_gb", "expert_parallel_size")


@dataclass(frozen=True, slots=True)
class ServerShare:
    """One server: whom it served, with what, on which part of the device."""

    name: str
    tenants: tuple[str, ...]
    served: Served
    hardware: Hardware
    apart: bool
    """Whether its part of the memory bandwidth is its own (a MIG instance)."""
    sequences: int | None
    """That it runs at once at most, where it was told."""
    cache_tokens: float
    """That its memory can hold at most beside the weights."""
    claimed_cache_tokens: int | None
    """That the engine says it holds."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """The servers of a cell and the device that they shared."""

    hardware: Hardware
    """All that the servers had together."""
    capacity_bytes: float
    """Memory of one device; infinite where that is not known."""
    servers: tuple[ServerShare, ...]
    unchecked: str | None = None
    """What of the device is not known, and so not checked."""


class UnknownLimitsError(Exception):
    """Limits cannot be told; the text says why."""


def deployment(stored: StoredCell, assumed: Assumed) -> Deployment:
    """The servers of a stored cell.

    Raises:
        UnknownLimitsError: device or model are not in the catalogue, or the cell does not say.
        SpecError: what is assumed is not in the catalogue.
        ResultsError: the cell's own file is damaged.
    """
    config = _config(stored)
    args = mapping(mapping(config.get("launcher")).get("args"))
    if any(args.get(name) for name in _NOT_ITS_OWN):
        raise UnknownLimitsError("the model lies partly outside of the GPU")
    planned = mapping(config.get("plan")).get("slots")
    slots = planned if isinstance(planned, list) and planned else [_whole(stored)]
    device = mapping(config.get("device"))
    if device.get("kind") == DeviceKind.CPU.value and not assumed.device:
        return _on_cpus(stored, list(map(mapping, slots)), args, assumed)
    spec = _gpu(device.get("name"), assumed)
    several = _count(args.get("tensor_parallel_size")) * _count(args.get("pipeline_parallel_size"))
    whole = Hardware.of(spec).times(several)
    servers = []
    for slot in map(mapping, slots):
        share = _share(stored, str(slot.get("name")))
        servers.append(_server(slot, share, args, _part(share, spec, whole), assumed))
    return Deployment(whole, spec.memory_bytes, tuple(servers))


def _gpu(told: Any, assumed: Assumed) -> GpuSpec:
    spec = gpu_spec(assumed.device) if assumed.device else spec_of_product(str(told or ""))
    if spec is None:
        raise UnknownLimitsError(
            f"the limits of {told!r} are not known" if told else "the device is not told"
        )
    return spec


def _on_cpus(
    stored: StoredCell,
    slots: Sequence[Mapping[str, Any]],
    args: Mapping[str, Any],
    assumed: Assumed,
) -> Deployment:
    """Servers on CPUs: each on those that were planned for it; their memory is not told."""
    sets = [slot.get("cpu_set") for slot in slots]
    known = [set(map(str, each)) if isinstance(each, list) and each else None for each in sets]
    together = None if None in known else len({cpu for each in known for cpu in each or ()})

    def hardware(count: int | None) -> Hardware:
        return Hardware.of_cpus("the CPUs", count, assumed.bandwidth_gb_s)

    servers = tuple(
        _server(
            slot, _share(stored, str(slot.get("name"))), args,
            (hardware(len(own) if own else None), False), assumed,
        )
        for slot, own in zip(slots, known, strict=True)
    )  # fmt: skip
    missing = ["memory bandwidth"] if assumed.bandwidth_gb_s is None else []
    missing += ["count"] if together is None else []
    unchecked = f"of CPUs, the {' and the '.join(missing)} is not told" if missing else None
    return Deployment(hardware(together), math.inf, servers, unchecked)


def mapping(value: Any) -> Mapping[str, Any]:
    """What a file says in this place, if it is a mapping; else nothing."""
    return value if isinstance(value, Mapping) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 1


def _whole(stored: StoredCell) -> dict[str, Any]:
    """Of results that others measured: one server for everybody."""
    return {"name": "all", "tenants": [tenant["name"] for tenant in stored.result.tenants]}


def _share(stored: StoredCell, slot: str) -> dict[str, Any]:
    """What was planned for a server and seen of it; a profile only of a real instance."""
    shares = map(mapping, stored.result.shares)
    found = next((dict(share) for share in shares if str(share.get("slot")) == slot), {})
    real = stored.result.label == Mode.MIG.value  # emulated ones and those of a CPU say so
    found["mig_profile"] = mapping(found.get("planned")).get("mig_profile") if real else None
    return found


def _config(stored: StoredCell) -> dict[str, Any]:
    path = stored.dir / layout.CONFIG
    try:
        found = yaml.load(path.read_bytes(), Loader=_YAML)  # noqa: S506 (a safe loader)
    except FileNotFoundError:
        raise UnknownLimitsError(f"{layout.CONFIG} is missing") from None
    except (OSError, yaml.YAMLError) as error:
        raise ResultsError(f"cannot be read: {error}", where=Location(path)) from error
    if not isinstance(found, dict):
        raise ResultsError("damaged: not a mapping", where=Location(path))
    return found


def _server(
    slot: Mapping[str, Any],
    share: Mapping[str, Any],
    args: Mapping[str, Any],
    part: tuple[Hardware, bool],
    assumed: Assumed,
) -> ServerShare:
    name = str(slot.get("model") or "")
    served = _served(name, args, assumed)
    hardware, apart = part
    own = share.get("memory_bytes") or slot.get("memory_bytes")
    capped = isinstance(own, int | float) and 0 < own < hardware.memory_bytes
    memory = float(own) if capped and own is not None else hardware.memory_bytes
    room = max(0.0, memory - served.weight_bytes)
    sequences, tenants = args.get("max_num_seqs"), slot.get("tenants")
    claimed = share.get("kv_cache_tokens") or mapping(share.get("engine")).get("kv_cache_tokens")
    return ServerShare(
        name=str(slot.get("name")),
        tenants=tuple(map(str, tenants)) if isinstance(tenants, list) else (),
        served=served,
        hardware=hardware,
        apart=apart,
        sequences=sequences if isinstance(sequences, int) and sequences > 0 else None,
        cache_tokens=room / served.cache_bytes_per_token,
        claimed_cache_tokens=claimed if isinstance(claimed, int) else None,
    )


@cache
def _known(name: str, assumed: str | None) -> Any:
    return virtual_model(assumed) if assumed else known_model(name)


def _served(name: str, args: Mapping[str, Any], assumed: Assumed) -> Served:
    model = _known(name, assumed.model)
    if model is None:
        raise UnknownLimitsError(f"the size of the model {name!r} is not known")
    ahead = args.get("speculative_config") or args.get("num_speculative_tokens")
    if isinstance(ahead, Mapping):
        ahead = ahead.get("num_speculative_tokens")
    if ahead is not None and not isinstance(ahead, int):
        raise UnknownLimitsError("how many tokens are speculated ahead is not told")
    cache_dtype = str(args.get("kv_cache_dtype") or "")
    return Served(
        model,
        weight_bits(name, args),
        8 if "8" in cache_dtype else 16,
        1 + (ahead or 0),
    )


def _part(share: Mapping[str, Any], spec: GpuSpec, whole: Hardware) -> tuple[Hardware, bool]:
    """What of the device a server could use, as far as that was verified."""
    for each in spec.mig_profiles:
        if each.name == share.get("mig_profile"):
            part = whole.part(
                compute=each.sm_count / spec.sm_count,
                bandwidth=each.memory_slices / spec.mig_memory_slices,
            )
            return part, True
    percentage = share.get("mps_server_percentage")
    if isinstance(percentage, int | float) and 0 < percentage < 100:
        processors = math.ceil(spec.sm_count * percentage / 100)
        return whole.part(compute=processors / spec.sm_count), False
    return whole, False
