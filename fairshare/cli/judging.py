"""Flags of what figures are judged by: a price, and the device to hold them against."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fairshare.cli.options import TEXT

F = TypeVar("F", bound=Callable[..., Any])

_META = "fairshare.price_per_hour"


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
    """What to hold a result folder against where it does not say, or says another name."""
    for option in (
        click.option(
            "--model", type=TEXT, metavar="NAME", help="Hold figures against this model's size."
        ),
        click.option("--device", type=TEXT, metavar="NAME", help="Hold figures against this GPU."),
    ):
        command = option(command)
    return command
