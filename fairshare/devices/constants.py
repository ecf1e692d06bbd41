"""What is known of each GPU model: peaks, memory and MIG profiles, each with its source."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from fairshare.devices.evidence import Evidence, Fact, facts_in
from fairshare.errors import SpecError

MIB = 1024**2
GIB = 1024**3
_FILE = "gpus.yaml"


@dataclass(frozen=True, slots=True)
class MigProfile:
    """One kind of GPU instance, as a row of ``nvidia-smi mig -lgip``.

    ``starts`` are the memory slices at which an instance of ``memory_slices`` may begin;
    ``engines`` are its copy, decode, encode, JPEG and optical-flow engines.
    """

    name: str
    id: int
    instances: int
    memory_gib: float
    sm_count: int
    compute_slices: int
    memory_slices: int
    starts: tuple[int, ...]
    engines: tuple[int, int, int, int, int]
    evidence: Evidence = Evidence.MEASURED

    @property
    def memory_bytes(self) -> int:
        """Memory of one instance."""
        return round(self.memory_gib * GIB)


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """One GPU model. ``fp16_tflops`` is dense; ``memory_gb_s`` is 1e9 bytes per second.

    ``facts`` says how each figure is known. ``compared_with`` are measurements with which
    predictions were compared, of ``compared_models``; where there are none they are unvalidated.
    """

    name: str
    product: str
    architecture: str
    compute_capability: str
    fp16_tflops: float
    memory_bytes: int
    memory_gb: float
    memory_gb_s: float
    sm_count: int
    l2_mb: float
    facts: Mapping[str, Fact]
    compared_with: str | None = None
    compared_models: tuple[str, ...] = ()
    mig_source: str | None = None
    mig_profiles: tuple[MigProfile, ...] = ()
    mig_memory_slices: int = 0
    mig_compute_slices: int = 0
    mig_toggle_needs_reset: bool = False

    @property
    def mig_capable(self) -> bool:
        """Whether the model has MIG at all."""
        return bool(self.mig_profiles)


@cache
def _table() -> dict[str, dict[str, Any]]:
    text = resources.files("fairshare.devices").joinpath(_FILE).read_text("utf-8")
    gpus: dict[str, dict[str, Any]] = yaml.safe_load(text)["gpus"]
    return gpus


def gpu_names() -> tuple[str, ...]:
    """Names that :func:`gpu_spec` knows."""
    return tuple(_table())


@cache
def gpu_spec(name: str) -> GpuSpec:
    """The GPU model of that name (``a100-40``, ``h200``, ...).

    Raises:
        SpecError: no such name (the hint lists the known ones), or its entry cannot be used.
    """
    table = _table()
    raw = table.get(name.lower())
    if raw is None:
        close = difflib.get_close_matches(name.lower(), table, n=1)
        guess = f"did you mean {close[0]}? " if close else ""
        raise SpecError(
            f"there is no GPU named {name!r}",
            hint=f"{guess}known: {', '.join(table)}; how to add one: docs/virtual-gpu.md",
        )
    try:
        return _spec(name.lower(), raw)
    except (KeyError, ValueError, TypeError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise SpecError(
            f"the entry of GPU {name} in {_FILE} cannot be used: {why}",
            hint="how to add one: docs/virtual-gpu.md",
        ) from None


def _spec(name: str, raw: dict[str, Any]) -> GpuSpec:
    mig = raw.get("mig", {})
    facts = facts_in(raw)
    return GpuSpec(
        name=name,
        product=raw["product"],
        architecture=raw["architecture"],
        compute_capability=raw["compute_capability"],
        fp16_tflops=facts["fp16_tflops"].value,
        memory_bytes=facts["memory_mib"].value * MIB,
        memory_gb=facts["memory_gb"].value,
        memory_gb_s=facts["memory_gb_s"].value,
        sm_count=facts["sm_count"].value,
        l2_mb=facts["l2_mb"].value,
        facts=facts,
        compared_with=raw.get("compared_with"),
        compared_models=tuple(raw.get("compared_models", ())),
        mig_source=mig.get("source"),
        mig_profiles=tuple(_profile({**mig, **row}) for row in mig.get("profiles", ())),
        mig_memory_slices=mig.get("memory_slices", 0),
        mig_compute_slices=mig.get("compute_slices", 0),
        mig_toggle_needs_reset=mig.get("toggle_needs_reset", False),
    )


def spec_of_product(product: str) -> GpuSpec | None:
    """The model behind a product name as the driver gives it, if it is one we know."""
    for name, raw in _table().items():
        if any(re.search(pattern, product) for pattern in raw["match"]):
            return gpu_spec(name)
    return None


def _profile(row: dict[str, Any]) -> MigProfile:
    copy, decode, encode, jpeg, ofa = row["engines"]
    return MigProfile(
        name=row["name"],
        id=row["id"],
        instances=row["instances"],
        memory_gib=row["memory_gib"],
        sm_count=row["sm"],
        compute_slices=row["compute"],
        memory_slices=row["memory"],
        starts=tuple(row["starts"]),
        engines=(copy, decode, encode, jpeg, ofa),
        evidence=Evidence(row["evidence"]),
    )
