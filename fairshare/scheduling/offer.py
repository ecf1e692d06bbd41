"""How a policy is offered to users: its names, and its options with what they may be.

The options of a policy are a frozen dataclass, one field for each, made with :func:`option`::

    @dataclass(frozen=True, slots=True)
    class RpmOptions:
        limit: int = option(20, "accepted requests of a tenant in the window", least=1)
        window_s: float = option(60.0, "how far back is counted", above=0)

What a user wrote is read by :func:`read_options`, by the type of the default: ``int``, ``float``,
``bool`` or (one of some) ``str``. Numbers and truths may come as text, as from a command line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from fairshare.scheduling.policy import SchedulingPolicy, Tenants

T = TypeVar("T", int, float, bool, str)


@dataclass(frozen=True, slots=True)
class NoOptions:
    """Of a policy that has none."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One policy that users can ask for by name."""

    name: str
    says: str
    """Its rule in a few words, for lists."""
    make: Callable[[Any, Tenants], SchedulingPolicy]
    """A new policy from its options (of the type ``options``) and the tenants' terms."""
    options: type[Any] = NoOptions
    aliases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Other names for it, each with the options that it stands for."""


def option(
    default: T,
    says: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    one_of: tuple[str, ...] = (),
) -> T:
    """A field of an options dataclass, with its default, meaning and range.

    ``least`` and ``most`` may be reached, ``above`` must be passed; ``one_of`` lists what a text
    may be (none: any).
    """
    limits = {"least": least, "above": above, "most": most, "one_of": one_of}
    made: T = field(default=default, metadata={"says": says, **limits})
    return made


def read_options(offer: Offer, given: Mapping[str, Any]) -> Any:
    """The options of that policy as the user gave them, the others at their defaults.

    Raises:
        ValueError: there is no such option, or it cannot be that; the text says what there is.
    """
    known = {each.name: each for each in fields(offer.options)}
    read = {}
    for name, value in given.items():
        each = known.get(name.replace("-", "_"))
        if each is None:
            there_is = ", ".join(known) or "none"
            raise ValueError(f"policy {offer.name} has no option {name!r}; it has: {there_is}")
        try:
            read[each.name] = _value(value, type(each.default), each.metadata)
        except ValueError as error:
            raise ValueError(f"option {each.name} of policy {offer.name} {error}") from None
    return offer.options(**read)


def _value(value: object, kind: type, limits: Mapping[str, Any]) -> object:
    if kind is bool:
        return _truth(value)
    if kind is str:
        if not limits["one_of"] and isinstance(value, str):
            return value
        if value not in limits["one_of"]:
            raise ValueError(f"must be one of {', '.join(limits['one_of'])}, not {value!r}")
        return value
    number = _number(value, whole=kind is int)
    if not (limits["least"] <= number <= limits["most"] and number > limits["above"]):
        raise ValueError(f"must be {_range(limits)}, not {value!r}")
    return number


def _truth(value: object) -> bool:
    texts = {"true": True, "yes": True, "false": False, "no": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in texts:
        return texts[value.lower()]
    raise ValueError(f"must be true or false, not {value!r}")


def _number(value: object, *, whole: bool) -> int | float:
    wrong = ValueError(f"must be {'a whole number' if whole else 'a number'}, not {value!r}")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise wrong from None
    if not math.isfinite(number) or (whole and number != int(number)):
        raise wrong
    return int(number) if whole else number


def _range(limits: Mapping[str, Any]) -> str:
    words = {"least": "at least", "above": "more than", "most": "at most"}
    bounds = [f"{words[name]} {limits[name]:g}" for name in words if math.isfinite(limits[name])]
    return " and ".join(bounds)
