"""The entry point: finds the command, imports only it, and turns errors into exit codes."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from fairshare import __version__, users
from fairshare.cli.output import silence
from fairshare.errors import ExitCode, FairshareError

# name -> module that defines it, and its line in --help. Importing a command's module may take a
# second (pandas); --help must not.
COMMANDS = {
    "matrix": ("sweeps", "Run scenarios x modes x concurrencies and report the differences."),
    "run": ("sweeps", "Run a single cell, or rerun one of a result folder."),
    "plan": ("sweeps", "Show what matrix would do, command by command, and how long it takes."),
    "predict": ("predict", "Predict what matrix would show, in seconds and without a GPU."),
    "calibrate": ("predict", "Fit the simulated GPU to what was measured on a real one."),
    "analyze": ("results", "Rebuild the summary of a result folder from its raw records."),
    "plot": ("results", "Rebuild the figures of a result folder."),
    "report": ("results", "Rebuild the HTML report of a result folder."),
    "compare": ("compare", "Hold result folders against each other, for people and for CI."),
    "plausible": ("plausible", "Say which figures a device cannot have reached, and why."),
    "import": ("exchange", "Bring in results of other tools, to analyse them in the same way."),
    "export": ("exchange", "Write results as Parquet, CSV or vllm bench serve's JSON."),
    "list": ("catalog", "List scenarios, launchers, matrices, devices, models."),
    "validate": ("catalog", "Check YAML files without running anything."),
    "schema": ("schema", "Print the JSON Schemas of all files, or set up an editor with them."),
    "doctor": ("doctor", "Check whether this machine is ready, and say what to do where not."),
    "status": ("status", "Show who holds which device, how far runs are, what killed ones left."),
    "clean": ("maintain", "Undo what a killed run left behind."),
    "gateway": ("gateway", "Run a fair queue in front of an LLM server that already runs."),
    "serve-virtual": ("maintain", "Run one server of the simulated GPU by hand."),
}
# What needs root's rights throughout: it looks at processes of all users, and starts none.
_LOOKS_AT_ALL = {"doctor", "clean", "status"}


class LazyGroup(click.Group):
    """Knows its commands by name and imports a command only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"fairshare.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_") + "_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list for --help, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


_HELP = """Which way of sharing this GPU between my LLM tenants is fast, fair and isolated enough?

\b
fairshare matrix --modes logical,mps,mig     the whole comparison
fairshare run noisy-neighbor --mode mps      a single cell
fairshare plan --modes exclusive,mig         what would be done, and nothing else
"""


@click.group(cls=LazyGroup, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fairshare")
def cli() -> None:
    """The root of all commands."""


def _refuse_undecodable(words: Sequence[str]) -> None:
    """Bytes that are not UTF-8 reach us as half characters, which no result file can hold."""
    for word in words:
        if not word.isprintable() and any("\ud800" <= c <= "\udfff" for c in word):
            raise click.UsageError(f"an argument is not valid UTF-8: {word!r}")


def _refuse_missing_folder() -> None:
    """Names are looked up in the working folder, and results go there."""
    try:
        Path.cwd()
    except OSError:
        os.chdir("/")
        if not _LOOKS_AT_ALL & set(sys.argv[1:2]):
            raise click.UsageError("the working folder has been removed: cd to another") from None


def _say_failed(error: OSError) -> None:
    what = error.filename or "the output"
    with contextlib.suppress(OSError):
        click.echo(f"error: cannot use {what}: {error.strerror or error}", err=True)


def main() -> None:
    """Run the command line; every expected error is one message and an exit code."""
    try:
        _refuse_undecodable(sys.argv[1:])
        _refuse_missing_folder()
        if not _LOOKS_AT_ALL & set(sys.argv[1:2]):
            users.step_back()
        code = cli.main(standalone_mode=False)
    except FairshareError as error:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = ExitCode.BAD_INPUT
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        silence()  # the reader went away (| head)
        code = ExitCode.SOME_CELLS_FAILED
    except OSError as error:
        silence()  # it may be the output itself that cannot be written
        _say_failed(error)
        code = ExitCode.BAD_INPUT
    sys.exit(int(code or ExitCode.OK))
