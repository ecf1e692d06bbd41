"""The table of GPU models."""

from __future__ import annotations

import copy

import pytest

from fairshare.devices import constants
from fairshare.devices.constants import gpu_names, gpu_spec, spec_of_product
from fairshare.errors import SpecError


@pytest.mark.parametrize("name", gpu_names())
def test_every_model_is_consistent(name: str) -> None:
    """Each profile fits its GPU: placements, SMs and GiB lie within the whole."""
    spec = gpu_spec(name)
    assert all(fact.source and fact.value for fact in spec.facts.values())
    assert spec_of_product(spec.product) == spec
    for profile in spec.mig_profiles:
        assert profile.instances <= len(profile.starts)
        assert all(s + profile.memory_slices <= spec.mig_memory_slices for s in profile.starts)
        assert profile.sm_count <= spec.sm_count
        assert profile.memory_bytes * profile.instances <= spec.memory_bytes
        assert profile.name.startswith(f"{profile.compute_slices}g.")


def test_known_figures_are_the_published_ones() -> None:
    """The H200's 1g slice has 16 SMs and 16 GiB, whatever its name says."""
    profile = next(p for p in gpu_spec("h200").mig_profiles if p.id == 19)
    assert (profile.name, profile.sm_count, profile.memory_gib) == ("1g.18gb", 16, 16.0)


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("NVIDIA A100-PCIE-40GB", "a100-40"),
        ("NVIDIA A100 80GB PCIe", "a100-80"),
        ("NVIDIA H100 80GB HBM3", "h100-80"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA A10G", "a10g"),
    ],
)
def test_product_names_find_their_model(product: str, name: str) -> None:
    """A name as the driver gives it finds the model."""
    spec = spec_of_product(product)
    assert spec is not None
    assert spec.name == name


@pytest.mark.parametrize("product", ["NVIDIA L40", "NVIDIA GH200 144G HBM3e", "NVIDIA H100 PCIe"])
def test_similar_products_are_not_mistaken(product: str) -> None:
    """A relative with other figures is not taken for a model we know."""
    assert spec_of_product(product) is None


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    """A wrong name ends in a message that helps."""
    with pytest.raises(SpecError) as caught:
        gpu_spec("a100-4")
    assert "did you mean a100-40?" in str(caught.value)
    assert "l4" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sm_count": 0}, "sm_count is 0, and must be above zero"),
        ({"memory_gb_s": float("nan")}, "memory_gb_s is nan"),
        ({"fp16_tflops": None}, "must be above zero"),
    ],
    ids=["no SMs", "no number", "nothing"],
)
def test_an_entry_with_impossible_figures_is_refused(
    change: dict[str, float | None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that a user added wrongly ends in a sentence that names the figure."""
    entry = copy.deepcopy(constants._table()["l4"])
    entry["facts"].update(change)
    monkeypatch.setattr(constants, "_table", lambda: {"mine": entry})
    gpu_spec.cache_clear()
    with pytest.raises(SpecError, match=f"entry of GPU mine in gpus.yaml .* {says}"):
        gpu_spec("mine")
