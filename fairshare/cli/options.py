"""Flags that several commands share, and how their text becomes values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
import yaml

from fairshare.records import Mode, Scheduling, TransportKind
from fairshare.spec.choices import Order, Partitioning, TimeslicePolicy
from fairshare.spec.layouts import MigHow, layout_text
from fairshare.units import parse_duration_s

F = TypeVar("F", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """``20s``, ``500ms``, ``3m`` or plain seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds."""
        try:
            return parse_duration_s(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class CommaList(click.ParamType[list[Any]]):
    """Values separated by commas."""

    name = "list"

    def __init__(self, item: click.ParamType[Any], metavar: str) -> None:
        self.item = item
        self.name = metavar

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Any]:
        """The values, each converted."""
        if isinstance(value, list):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(parts):
            self.fail(f"{value!r} has an empty part", param, ctx)
        return [self.item.convert(part, param, ctx) for part in parts]


class EngineArg(click.ParamType[tuple[str, Any]]):
    """``name=value``; the value is read as YAML, so numbers and true/false are themselves."""

    name = "NAME=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        """The name (with underscores) and the value."""
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not equals or not name:
            self.fail(f"{value!r} is not of the form NAME=VALUE", param, ctx)
        try:
            return name.lstrip("-").replace("-", "_"), yaml.safe_load(text)
        except yaml.YAMLError:
            self.fail(f"the value of {name} is not valid YAML: {text!r}", param, ctx)


class PolicyOption(click.ParamType[tuple[str, str, Any]]):
    """``policy.option=value``; the value is read as YAML."""

    name = "POLICY.OPTION=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str, Any]:
        """The policy, the name of its option, and the value."""
        if isinstance(value, tuple):
            return value
        place, equals, text = value.partition("=")
        policy, dot, name = place.rpartition(".")
        if not (equals and dot and policy and name):
            self.fail(f"{value!r} is not of the form POLICY.OPTION=VALUE", param, ctx)
        try:
            return policy, name, yaml.safe_load(text)
        except yaml.YAMLError:
            self.fail(f"the value of {place} is not valid YAML: {text!r}", param, ctx)


class Text(click.ParamType[str]):
    """Text that is not empty: ``--model "$UNSET"`` is a slip, not a wish for the default."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text as it is."""
        text = str(value)
        if not text.strip():
            self.fail("it is empty", param, ctx)
        return text


class MigLayout(click.ParamType[str]):
    """Weights, profiles, or mig-parted's mapping of profiles to counts."""

    name = "layout"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The layout in its one spelling."""
        try:
            mapping = isinstance(value, str) and value.lstrip().startswith(("{", "["))
            return layout_text(yaml.safe_load(value) if mapping else value)
        except (ValueError, yaml.YAMLError) as error:
            self.fail(str(error), param, ctx)


TEXT = Text()
MODE = click.Choice([mode.value for mode in Mode])
DURATION = Duration()
MODES = CommaList(MODE, "MODE,...")
INTEGERS = CommaList(click.IntRange(min=1), "N,...")
FLOATS = CommaList(click.FLOAT, "X,...")
PLACE = click.Choice([place.value for place in Scheduling])
PLACES = CommaList(PLACE, "PLACE,...")
POLICIES = CommaList(TEXT, "POLICY,...")


def where_flags(command: F) -> F:
    """What to run on, and the engine's arguments."""
    arguments = click.option(
        "--engine-arg",
        "engine_args",
        type=EngineArg(),
        multiple=True,
        help="Override an argument of the engine, such as max_model_len=4096.",
    )
    return device_flags(arguments(command))


def device_flags(command: F) -> F:
    """What to run on: device, launcher, model, permissions."""
    for option in reversed(
        [
            click.option(
                "--device",
                type=TEXT,
                metavar="KIND",
                help="cuda, cpu, virtual or virtual:NAME (a100-40, ...)",
            ),
            click.option(
                "--gpu", type=TEXT, metavar="INDEX|UUID", help="Which GPU, where there are several."
            ),
            click.option(
                "--launcher", type=TEXT, metavar="NAME|PATH", help="How servers are started."
            ),
            click.option(
                "--model", type=TEXT, metavar="PATH|NAME", help="Model of tenants that name none."
            ),
            click.option(
                "--python", type=TEXT, metavar="PATH", help="Interpreter that has the engine."
            ),
            click.option(
                "--mig",
                type=click.Choice([how.value for how in MigHow]),
                help="Real MIG instances, emulated ones, or what can be had (auto, the default).",
            ),
            click.option(
                "--mig-layout",
                type=MigLayout(),
                metavar="LAYOUT",
                help="What each tenant gets in mode mig: 3:2:1:1 or 3g.20gb,2g.10gb.",
            ),
            click.option(
                "--mps-partitioning",
                type=click.Choice([each.value for each in Partitioning]),
                help="Ceilings on the SMs (limits, the default), or SMs of each tenant's own.",
            ),
            click.option(
                "--timeslice-policy",
                type=click.Choice([each.value for each in TimeslicePolicy]),
                help="Length of the driver's time slices, put back at the end.",
            ),
            click.option(
                "--lock-clocks",
                type=TEXT,
                metavar="MHZ|MIN,MAX",
                help="Lock the GPU's clocks while servers run (with --allow-gpu-changes).",
            ),
            click.option(
                "--allow-gpu-changes",
                is_flag=True,
                help="Allow real MIG, --timeslice-policy and --lock-clocks: what is changed is "
                "put back.",
            ),
            click.option(
                "--allow-gpu-reset",
                is_flag=True,
                help="Allow it also where MIG mode takes a reset of the GPU (A100, A30).",
            ),
            click.option(
                "--allow-foreign",
                is_flag=True,
                help="Use a GPU on which somebody else's processes run.",
            ),
        ]
    ):
        command = option(command)
    return command


def policy_flags(command: F) -> F:
    """How policies are set, whichever they are."""
    for option in reversed(
        [
            click.option(
                "--policy-option",
                "policy_options",
                type=PolicyOption(),
                multiple=True,
                help="Set an option of a policy, such as vtc.output_price=4.",
            ),
            click.option(
                "--gateway-window",
                type=click.IntRange(1, 100_000),
                help="Requests that a gateway lets the server have at once (default: an eighth "
                "more than the engine runs at once).",
            ),
        ]
    ):
        command = option(command)
    return command


def load_flags(command: F) -> F:
    """How the load is made: how long a cell lasts, and what sends the requests."""
    for option in reversed(
        [
            click.option("--warmup", type=DURATION, help="Load that is left out of the figures."),
            click.option("--window", type=DURATION, help="The measured window of each cell."),
            click.option("--drain", type=DURATION, help="Time for outstanding requests to end."),
            click.option(
                "--seed", type=click.IntRange(0, 2**63 - 1), help="Seed of all that is random."
            ),
            click.option(
                "--load-processes",
                type=click.IntRange(1, 256),
                help="Spread the load generator over processes (default: 1).",
            ),
            click.option(
                "--transport",
                type=click.Choice([kind.value for kind in TransportKind]),
                help="What carries the requests: stream (the default), aiohttp, or in-process "
                "(vLLM without HTTP; modes logical and exclusive).",
            ),
        ]
    ):
        command = option(command)
    return command


def night_flags(command: F) -> F:
    """In which order a sweep of many hours is run, and what it does about failures."""
    for option in reversed(
        [
            click.option("--num-runs", type=click.IntRange(1, 1000), help="Repetitions."),
            click.option(
                "--order",
                type=click.Choice([each.value for each in Order]),
                help="interleaved (the default: round by round, every second one backwards), "
                "grouped (servers start once) or random (each round shuffled).",
            ),
            click.option(
                "--order-seed",
                type=click.IntRange(0, 2**63 - 1),
                help="With --order random: another seed is another order.",
            ),
            click.option(
                "--max-like-failures",
                type=click.IntRange(0, 1000),
                metavar="N",
                help="Leave the rest of a deployment's cells out after N failures alike in a row "
                "(default: 3; 0: never).",
            ),
        ]
    ):
        command = option(command)
    return command
