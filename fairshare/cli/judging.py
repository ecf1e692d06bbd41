"""Flags of what figures are judged by: a price, and the device to hold them against."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fairshare.cli.options import TEXT

if TYPE_CHECKING:
    from fairshare.analysis.violations import Assumed

F = TypeVar("F", bound=Callable[..., Any])

_META = "fairshare.price_per_hour"
_META_ASSUMED = "fairshare.assumed"
_ASSUMED: dict[str, dict[str, Any]] = {  # the last is the first in the help
    "bandwidth": {
        "type": click.FloatRange(min=0, min_open=True),
        "metavar": "GB/S",
        "help": "Hold figures of CPUs against this memory bandwidth.",
    },
    "model": {
        "type": TEXT,
        "metavar": "NAME",
        "help": "Hold figures against this model's size.",
    },
    "device": {"type": TEXT, "metavar": "NAME", "help": "Hold figures against this GPU."},
}


def _remember(ctx: click.Context, _: click.Parameter, value: float | None) -> float | None:
    if value is not None and math.isnan(value):
        raise click.BadParameter("it is no number")
    ctx.meta[_META] = value
    return value


def price_flag(command: F) -> F:
    """What an hour of the GPU costs; :func:`price_per_hour` has it, wherever it is asked for."""
    return click.option(
        "--price",
        type=click.FloatRange(min=0, min_open=True, max=1e9),
        metavar="PER_GPU_HOUR",
        help="Price of an hour of the GPU: adds the cost per million output tokens to the verdict.",
        expose_value=False,
        callback=_remember,
    )(command)


def price_per_hour() -> float | None:
    """The price that this command was given; None without one."""
    found: float | None = click.get_current_context().meta.get(_META)
    return found


def assumed_flags(command: F) -> F:
    """What to hold a result folder against where it does not say, or says another name.

    :func:`assumed` has it.
    """
    for name, of in _ASSUMED.items():
        command = click.option(f"--{name}", expose_value=False, callback=_remember_assumed, **of)(
            command
        )
    return command


def assumed() -> Assumed:
    """What this command was told to assume."""
    from fairshare.analysis.violations import Assumed

    given: dict[str, Any] = click.get_current_context().meta.get(_META_ASSUMED, {})
    return Assumed(given.get("device"), given.get("model"), given.get("bandwidth"))


def _remember_assumed(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise click.BadParameter("it is no number")
    ctx.meta.setdefault(_META_ASSUMED, {})[option.name] = value
