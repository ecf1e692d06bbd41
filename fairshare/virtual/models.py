"""The models that the simulated GPU can serve: sizes only, no weights."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from fairshare.devices.evidence import Fact, facts_in
from fairshare.errors import SpecError


@dataclass(frozen=True, slots=True)
class VirtualModel:
    """What a step of a dense 16-bit transformer costs follows from these numbers.

    ``streamed_bytes`` is what one step reads of the weights (without the input embedding);
    ``linear_params`` are the weights of the layers' matrix products; ``facts`` says how each
    figure is known.
    """

    name: str
    facts: Mapping[str, Fact]
    linear_params: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    weight_bytes: int
    streamed_bytes: int
    kv_bytes_per_token: int
    max_model_len: int
    eos_token_ids: tuple[int, ...]

    @property
    def linear_flops_per_token(self) -> int:
        """FLOPs of all layers' matrix products for one token."""
        return 2 * self.linear_params

    @property
    def head_flops_per_sample(self) -> int:
        """FLOPs of the output head for one token that is sampled."""
        return 2 * self.vocab_size * self.hidden

    @property
    def attention_flops_per_pair(self) -> int:
        """FLOPs of attention in all layers for one pair of token and context token."""
        return 4 * self.layers * self.heads * self.head_dim


@cache
def virtual_models() -> dict[str, VirtualModel]:
    """Every model by name, from the data file beside this module.

    Raises:
        SpecError: an entry cannot be used.
    """
    path = Path(__file__).with_name("models.yaml")
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    found = {}
    for name, entry in entries.items():
        try:
            found[name] = _model(name, facts_in(entry))
        except (KeyError, ValueError, TypeError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise SpecError(
                f"the entry of model {name} in {path.name} cannot be used: {why}",
                hint="how to add one: docs/virtual-gpu.md",
            ) from None
    return found


def _model(name: str, facts: Mapping[str, Fact]) -> VirtualModel:
    values = {fact: known.value for fact, known in facts.items()}
    values["eos_token_ids"] = tuple(values["eos_token_ids"])
    return VirtualModel(name=name, facts=facts, **values)


def model_names() -> tuple[str, ...]:
    """Names that :func:`virtual_model` knows."""
    return tuple(virtual_models())


def virtual_model(name: str) -> VirtualModel:
    """The model called ``name``.

    Raises:
        SpecError: there is none; the hint lists those that are known.
    """
    known = virtual_models()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name.lower(), known, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    raise SpecError(
        f"the virtual GPU has no model named {name!r}",
        hint=f"{meant}known: {', '.join(sorted(known))}; dense models in 16 bit can be added "
        "(docs/virtual-gpu.md), but experts (MoE) and quantised weights are not modelled",
    )
