"""clean and serve-virtual: what is needed beside experiments."""

from __future__ import annotations

import sys

import click


@click.command("clean")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def clean_command(dry_run: bool) -> None:
    """End processes, undo device changes and remove files of runs that were killed.

    Only what carries the label of a run whose own process is gone is touched.
    """
    from fairshare.processes.clean import find_dead_runs, undo

    runs = find_dead_runs()
    if not runs:
        click.echo("nothing to clean: no killed run has left anything behind")
        return
    for run in runs:
        click.echo(f"run {run.run_id}{' (dry run)' if dry_run else ''}:")
        for line in undo(run, dry_run=dry_run) or ["nothing left"]:
            click.echo(f"  {line}")


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
