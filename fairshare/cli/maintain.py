"""clean and serve-virtual: what is needed beside experiments."""

from __future__ import annotations

import sys

import click

from fairshare.cli.output import say
from fairshare.errors import ExitCode


@click.command("clean")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option(
    "--unit", is_flag=True, help="Print the systemd units that do this at boot and after a sweep."
)
def clean_command(dry_run: bool, unit: bool) -> None:
    """End processes, undo device changes and remove files of runs that were killed.

    Only what carries the label of a run whose own process is gone is touched. Exit code 3: not
    everything could be undone, and what to do about it is said.
    """
    from fairshare.processes.clean import (
        FAILED,
        find_dead_runs,
        remove_free_locks,
        remove_stillborn,
        undo,
    )
    from fairshare.processes.units import boot_unit

    if unit:
        click.echo(boot_unit(), nl=False)
        return
    told: list[str] = []
    runs = find_dead_runs()
    # Nobody may be reading (a log on a full disk, | head): everything is undone all the same.
    for run in runs:
        say(f"run {run.run_id}{' (dry run)' if dry_run else ''}:")
        lines = undo(run, dry_run=dry_run)
        for line in lines or ["nothing left"]:
            say(f"  {line}", fg="red" if line.startswith(FAILED) else None)
        told += lines
    for line in remove_free_locks(dry_run) + remove_stillborn(dry_run):
        if line not in told:
            say(line)
            told.append(line)
    if not runs and not told:
        say("nothing to clean: no killed run has left anything behind")
    _tell_of_others()
    if any(line.startswith(FAILED) for line in told):
        say("not everything could be undone; the next clean tries again", fg="red")
        sys.exit(ExitCode.PREFLIGHT_FAILED)


def _tell_of_others() -> None:
    from fairshare.processes.clean import dead_runs_of_others
    from fairshare.processes.locks import user_name

    for run in dead_runs_of_others():
        pids = ", ".join(str(each.pid) for each in run.processes)
        user = user_name(run.uid)
        say(f"left alone: run {run.run_id} of {user} is dead too and left process {pids}")
        say(f"  to end it: {run.remedy}")


@click.command(
    "serve-virtual",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve_virtual_command(arguments: tuple[str, ...]) -> None:
    """Run one server of the simulated GPU (its options: --help)."""
    from fairshare.virtual.server import main

    sys.exit(main(list(arguments)))
