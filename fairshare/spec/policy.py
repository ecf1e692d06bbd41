"""Who is served next: what a user writes under ``policies:``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Annotated, Any, Self

import orjson
from pydantic import BeforeValidator, ConfigDict, WithJsonSchema, model_validator

from fairshare.scheduling.policies import OFFERS, aliases, names, policy_for
from fairshare.spec.base import MisplacedError, Spec

JsonSchema = dict[str, Any]


class PolicySpec(Spec):
    """A scheduling policy by name or alias; what else is written are options of its own."""

    model_config = ConfigDict(extra="allow")

    kind: str
    """A policy, or a name that a research artifact has for one (docs/schedulers.md)."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        try:
            policy_for(self.kind, self.options)
        except ValueError as error:
            guilty, close = self._guilty(str(error))
            meant = f" - did you mean {close}?" if close else ""
            raise MisplacedError(f"{error}{meant}", guilty) from None
        return self

    def _guilty(self, complaint: str) -> tuple[str, str | None]:
        """Which key the complaint is about, and what was probably meant."""
        known = {name: offer for offer in OFFERS for name in (offer.name, *offer.aliases)}
        if self.kind not in known:
            return "kind", _close(self.kind, known)
        there_are = [field.name for field in fields(known[self.kind].options)]
        for name in self.options:
            if name.replace("-", "_") not in there_are:
                return name, _close(name, there_are)
        named = (name for name in self.options if f"option {name} " in complaint)
        return next(named, "kind"), None

    @property
    def options(self) -> Mapping[str, Any]:
        """The options as written, without those that were left at their defaults."""
        return self.model_extra or {}

    @property
    def label(self) -> str:
        """As shown to people: ``vtc``, or ``vtc(output_price=4)``."""
        options = ",".join(f"{name}={_shown(self.options[name])}" for name in sorted(self.options))
        return f"{self.kind}({options})" if options else self.kind

    @property
    def is_fcfs(self) -> bool:
        """Whether it is the order in which engines serve by themselves."""
        return policy_for(self.kind, self.options).name == "fcfs"


def _close(word: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _written_out(raw: Any) -> Any:
    return {"kind": raw} if isinstance(raw, str) else raw


_NAMES: JsonSchema = {"type": "string", "enum": [*names(), *aliases()]}
_WRITTEN: JsonSchema = {
    "type": "object",
    "properties": {"kind": _NAMES},
    "required": ["kind"],
    "additionalProperties": True,
}
Policy = Annotated[
    PolicySpec,
    BeforeValidator(_written_out),
    WithJsonSchema(
        {
            "anyOf": [_NAMES, _WRITTEN],
            "description": "A scheduling policy: its name, or {kind: NAME, option: value, ...}.",
        }
    ),
]
"""A policy: its name alone, or a mapping of ``kind`` and options."""
