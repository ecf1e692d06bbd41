"""What a sweep would do, for people to read before they let it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import click

from fairshare.records import CellKey, Mode
from fairshare.runner.budget import left_for_later
from fairshare.runner.estimate import cell_s, estimate, starts_s
from fairshare.runner.foresight import Foreseen, foresee
from fairshare.runner.plan import Deployment, PlannedCell, RunPlan
from fairshare.runner.scheduling import OWN_ORDER
from fairshare.runner.search import typical_points
from fairshare.runner.settings import Settings
from fairshare.serving.command import server_command
from fairshare.sharing.plan import Slot
from fairshare.spec.launcher import Engine, Launcher
from fairshare.spec.search import KneeSearch
from fairshare.units import format_bytes, format_duration

_EXAMPLE_PORT = 8000
_EXAMPLE_DIR = Path("/tmp/fs-<run>")  # noqa: S108  (shown, never made)


def show_plan(settings: Settings, plan: RunPlan, budget_s: float | None = None) -> None:
    """Print deployments with their commands, cells in order, what cannot run, and the time.

    With a time budget also the cells that would be left for later.
    """
    seeds = {settings.seed_of(scenario) for scenario, _ in settings.scenarios}
    click.echo(f"launcher: {settings.launcher.name}   seed: {', '.join(map(str, sorted(seeds)))}")
    for deployment in plan.deployments:
        _show_deployment(settings, deployment)
    if settings.schedulers != (OWN_ORDER,) and set(settings.modes) != {Mode.LOGICAL}:
        click.echo("\npolicies are for mode logical; the other modes run once, without one")
    if plan.infeasible:
        click.secho("\ninfeasible:", bold=True)
        for infeasible in plan.infeasible:
            click.secho(f"  {infeasible.cell.id}: {infeasible.reason}", fg="yellow")
    foreseen = foresee(settings, plan)
    _show_warnings(foreseen)
    guess = estimate(plan, settings.launcher.engine, foreseen)
    if budget_s is not None:
        left = left_for_later(plan, budget_s, settings.launcher.engine, foreseen)
        _show_left(left, budget_s)
    ours = settings.launcher.engine is not Engine.EXTERNAL
    starts = sum(len(deployment.plan.slots) for deployment in plan.deployments) if ours else 0
    click.echo(
        f"\n{len(plan.cells)} cells, {starts} server starts, "
        f"about {format_duration(guess.total_s)} "
        f"({format_duration(guess.starts_s)} of it starts). Nothing was started or changed."
    )
    if isinstance(settings.matrix.search, KneeSearch):
        most = settings.matrix.windows_per_point
        click.echo(
            "Each cell is where a search for the knee begins: about "
            f"{typical_points(settings.matrix.search)} loads, {min(2, most)} to {most} windows at "
            "each."
        )


def _show_left(left: list[PlannedCell], budget_s: float) -> None:
    click.secho(f"\nleft for later, in {format_duration(budget_s)}: {len(left)} cells", bold=True)
    for cell in left:
        click.echo(f"  {cell.id}")


def _show_warnings(foreseen: Mapping[CellKey, Foreseen]) -> None:
    """Cells that, by the model of the hardware, cannot exist or do not keep their SLOs."""
    lines = []
    for key, cell in foreseen.items():
        if cell.infeasible is not None:
            lines.append(f"  {key.slug}: cannot exist: {cell.infeasible}")
        for tenant, kept in cell.missed.items():
            lines.append(f"  {key.slug}: {tenant} keeps its SLO in {100 * kept:.0f} % of requests")
    if lines:
        click.secho("\nby simulation (docs/predict.md):", bold=True)
        for line in lines:
            click.secho(line, fg="yellow")


def _show_deployment(settings: Settings, deployment: Deployment) -> None:
    plan = deployment.plan
    took = starts_s([deployment], settings.launcher.engine)
    known = ", ".join([plan.provenance.value, *(mark.value for mark in plan.marks)])
    title = f"\n{deployment.id}  [{known}]  starts: {format_duration(took)}"
    click.secho(title, bold=True)
    for note in plan.notes:
        click.echo(textwrap.fill(note, 98, initial_indent="  ", subsequent_indent="  "))
    for step in plan.steps:
        click.echo(f"  $ {step}")
    for index, slot in enumerate(plan.slots):
        click.echo(f"  server {slot.name}: {_share(slot)}; tenants {', '.join(slot.tenants)}")
        click.echo(textwrap.indent(_command(settings, deployment.launcher, slot, index), "      "))
    for cell in deployment.cells:
        alone = " (alone)" if cell.key.mode is Mode.EXCLUSIVE else ""
        took_s = format_duration(cell_s(cell))
        click.echo(f"  cell {cell.id}{alone}{_policy(settings, cell)}: about {took_s}")


def _policy(settings: Settings, cell: PlannedCell) -> str:
    """The cell's policy, and how much a gateway lets the server have at once."""
    if cell.key.scheduling is None:
        return ""
    told = f" + {cell.key.policy} ({cell.key.scheduling.value}"
    if not cell.scheduler.behind_gateway:
        return f"{told})"
    window = settings.window_of(cell.scheduler)
    return f"{told}, {window or 'as many as keep one or two waiting'} at the server at once)"


def _share(slot: Slot) -> str:
    parts = [f"{slot.compute_fraction:.0%} compute", f"{slot.memory_fraction:.0%} memory"]
    if slot.memory_bytes is not None:
        parts.append(f"at most {format_bytes(slot.memory_bytes)}")
    if slot.cpu_set is not None:
        parts.append("cores " + ",".join(str(core) for core in slot.cpu_set))
    if slot.threads is not None:
        parts.append(f"{slot.threads} threads")
    return ", ".join(parts)


def _command(settings: Settings, launcher: Launcher, slot: Slot, index: int) -> str:
    if launcher.engine is Engine.EXTERNAL:
        return launcher.endpoints[slot.model].url
    command = server_command(
        launcher,
        slot,
        settings.models[slot.model],
        device=settings.device,
        port=_EXAMPLE_PORT + index,
        run_dir=_EXAMPLE_DIR / slot.name,
        python=settings.python,
    )
    return command.shown()
