"""list, validate: what can be written, and whether it is written well."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from fairshare import assets
from fairshare.devices.evidence import Evidence, Fact
from fairshare.errors import SpecError
from fairshare.spec.loading import SPECS, kind_of, load

_LISTED = [*assets.KINDS, "policy", "device", "model"]
_PLURALS = {
    {"policy": "policies", "matrix": "matrices"}.get(kind, f"{kind}s"): kind for kind in _LISTED
}


class _Kind(click.Choice[str]):
    """A kind of what can be listed, in the singular or in the plural."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(_PLURALS.get(value, value), param, ctx)


@click.command("list")
@click.argument("kind", required=False, type=_Kind(_LISTED))
@click.option(
    "-v", "--verbose", is_flag=True, help="Devices and models: each figure, and how it is known."
)
def list_command(kind: str | None, *, verbose: bool) -> None:
    """List what can be named on the command line; with KIND, only that."""
    for name in assets.KINDS if kind is None else [kind] if kind in assets.KINDS else []:
        click.secho(f"{assets.KINDS[name]}:", bold=True)
        for entry, path in assets.names(name).items():
            try:
                text = getattr(load(path, SPECS[name]), "description", "")
            except SpecError as error:
                text = f"(not valid: {error.message})"
            click.echo(f"  {entry:<16} {text}")
    if kind in (None, "policy"):
        _list_policies(in_full=kind is not None)
    if kind in (None, "device"):
        _list_devices(in_full=verbose)
    if kind in (None, "model"):
        _list_models(in_full=verbose)


def _list_devices(*, in_full: bool) -> None:
    """Devices; ``in_full`` also what is known of each simulated one, and of the hardware model."""
    from fairshare.devices.constants import gpu_names, gpu_spec
    from fairshare.units import format_bytes
    from fairshare.virtual.physics import constant_facts

    click.secho("devices:", bold=True)
    click.echo("  cuda, cpu")
    for spec in map(gpu_spec, gpu_names()):
        mig = "MIG" if spec.mig_capable else "no MIG"
        memory = format_bytes(spec.memory_bytes)
        kind = "simulated" if spec.compared_with else "simulated, unvalidated"
        click.echo(f"  virtual:{spec.name:<14} {spec.product}, {memory}, {mig}; {kind}")
        if in_full:
            _tell_facts(spec.facts)
            if spec.mig_source is not None:
                assumed = [p.name for p in spec.mig_profiles if p.evidence is Evidence.ASSUMED]
                click.echo(f"      MIG profiles: {spec.mig_source}")
                if assumed:
                    click.echo(f"        assumed: {', '.join(assumed)}")
            models = f", {', '.join(spec.compared_models)}" if spec.compared_models else ""
            click.echo(
                f"      predictions compared with: {spec.compared_with or 'nothing'}{models}"
            )
    click.echo(f"  simulated GPUs are kept in {assets.own_state_path() / 'virtual'}")
    if in_full:
        click.secho(
            "constants of the hardware model (fitted on the A100-40, assumed for all others):",
            bold=True,
        )
        _tell_facts(constant_facts())


def _list_models(*, in_full: bool) -> None:
    """Models; ``in_full`` also what is known of each that is simulated."""
    from fairshare.virtual.models import virtual_models

    click.secho("models made here, without a download:", bold=True)
    known = virtual_models()
    click.echo("  tiny, small (cuda and cpu); " + ", ".join(known) + " (virtual)")
    for name, model in known.items() if in_full else ():
        click.echo(f"  {name}")
        _tell_facts(model.facts)


def _tell_facts(facts: Mapping[str, Fact]) -> None:
    for name, fact in facts.items():
        value = f"{fact.value:.6g}" if isinstance(fact.value, float) else str(fact.value)
        click.echo(f"      {name:<22} {value:<16} {fact.evidence.value:<10} {fact.source}")


def _list_policies(*, in_full: bool) -> None:
    """Policies with their rule in a few words; ``in_full`` also their options and other names."""
    from dataclasses import fields

    from fairshare.scheduling.policies import OFFERS

    click.secho("policies (mode logical):", bold=True)
    for offer in OFFERS:
        click.echo(f"  {offer.name:<16} {offer.says}")
        for each in fields(offer.options) if in_full else ():
            click.echo(f"    {each.name} = {each.default}: {each.metadata['says']}")
        if in_full and offer.aliases:
            click.echo(f"    also called {', '.join(offer.aliases)}")


@click.command("validate")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def validate_command(files: tuple[Path, ...]) -> None:
    """Check scenario, launcher and matrix FILES, and the datasets that scenarios name."""
    from fairshare.spec.scenario import Scenario
    from fairshare.workload.requests import check_scenario

    failed = 0
    for path in files:
        try:
            kind = kind_of(path)
            loaded = load(path, SPECS[kind])
            if isinstance(loaded, Scenario):
                check_scenario(loaded, path.parent)
        except SpecError as error:
            click.echo(str(error), err=True)
            failed += 1
        else:
            click.echo(f"{path}: a valid {kind}")
    if failed:
        raise SpecError(f"{failed} of {len(files)} files are wrong")
