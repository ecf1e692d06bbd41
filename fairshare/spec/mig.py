"""How MIG is to be had, and how the GPU is to be cut: what a user writes under ``mig:``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from fairshare.spec.base import Spec
from fairshare.spec.layouts import MigHow, layout_text

Layout = Annotated[
    str,
    BeforeValidator(layout_text),
    WithJsonSchema(
        {
            "description": "weights 3:2:1:1 (in quotes), profiles 3g.20gb,2g.10gb, a list of "
            "either, or mig-parted's mapping of profiles to counts; in the order of the tenants",
            "anyOf": [{"type": "string"}, {"type": "array"}, {"type": "object"}],
        }
    ),
]


class MigSpec(Spec):
    """How mode ``mig`` makes its shares."""

    how: MigHow = MigHow.AUTO
    """auto: real instances where allowed and possible, else emulated; real; emulated."""
    layout: Layout | None = None
    """What each tenant gets, in order; without it, the tenants' shares decide."""
