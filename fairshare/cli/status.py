"""status: who holds which device, how far live runs are, and what killed ones have left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fairshare.sharing.holding import Holdings, SeenDevice, SeenProcess, SeenRun

FORMAT_VERSION = 1


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def status_command(as_json: bool) -> None:
    """Show who holds what: devices, live runs and how far they are, and what killed runs left.

    Nothing is changed. Of other users' runs only what the kernel shows is seen.
    """
    from fairshare.sharing.holding import look
    from fairshare.virtual.driver import folders

    seen = look(folders())
    if as_json:
        import orjson

        document = {"format_version": FORMAT_VERSION, **asdict(seen)}
        for run in document["runs"]:
            run["progress"] = _progress(run["owner_pid"])
        click.echo(orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2).decode())
        return
    _show(seen)


def _show(seen: Holdings) -> None:
    click.secho("devices", bold=True)
    for device in seen.devices:
        _show_device(device)
    click.secho("runs", bold=True)
    for run in seen.runs:
        _show_run(run)
    if not seen.runs:
        click.echo("  none")
    if seen.foreign_daemons:
        click.secho("MPS that is not ours", bold=True)
        _show_processes(seen.foreign_daemons, "  ")
    for note in seen.notes:
        click.echo(f"({note})")


def _show_device(device: SeenDevice) -> None:
    held = "free" if device.holder is None else f"held by {device.holder}"
    click.echo(f"  {device.name}: {held}")
    if device.foreign:
        click.echo("    others compute on it:")
        _show_processes(device.foreign, "      ")


def _show_run(run: SeenRun) -> None:
    owner = "" if run.owner_pid is None else f", pid {run.owner_pid}"
    click.echo(f"  {run.run_id}: {run.state}, of {run.user}{owner}")
    if run.state == "live":
        _show_progress(run.owner_pid)
    for change in run.changes:
        click.echo(f"    to be undone: {change}")
    _show_processes(run.processes, "    ")
    if run.problem is not None:
        click.secho(f"    its journal {run.journal}: {run.problem}", fg="yellow")
    if run.state == "dead":
        click.secho(f"    to end it: {run.remedy}", fg="yellow")


def _progress(pid: int | None) -> dict[str, Any] | None:
    """How far a run has come, for programs; None where that cannot be seen."""
    from fairshare.ui.under_way import course_of

    if pid is None or (found := course_of(pid)) is None:
        return None
    folder, course = found
    return {"results": folder, **asdict(course), "remaining_s": course.remaining_s(time.time())}


def _show_progress(pid: int | None) -> None:
    from fairshare.processes.locks import plain
    from fairshare.ui.under_way import course_of

    if pid is None or (found := course_of(pid)) is None:
        return
    folder, course = found
    click.echo(f"    results in {plain(str(folder))}")
    for line in course.lines(time.time()):
        click.echo(f"    {line}")


def _show_processes(processes: Sequence[SeenProcess], indent: str) -> None:
    for process in processes:
        slot = "" if process.slot is None else f"{process.slot}: "
        click.echo(f"{indent}{slot}pid {process.pid} of {process.user}: {process.command}")
