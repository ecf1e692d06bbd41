"""Which cells of a sweep are run, and which of those that a folder has already are run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fairshare.cli.options import TEXT

if TYPE_CHECKING:
    from fairshare.runner.plan import RunPlan
    from fairshare.runner.renewal import Choice
    from fairshare.runner.selection import Selection

_AGAIN = {
    "--resume": "Run only the cells that --output-dir still lacks; failed ones stay failed.",
    "--retry-failed": "The same, and run those again that failed.",
    "--force": "Run every cell anew; what was measured is kept in superseded/.",
}
_SELECTORS = {
    "--only": "Just the cells that match: a glob on their names, or terms such as "
    "mode=mps,run=1 (scenario mode concurrency policy scheduling tenant shares load run).",
    "--exclude": "All but the cells that match; the same patterns.",
}


def again_flags(command: Any) -> Any:
    """What to do with a folder that has results already."""
    for name, says in reversed(_AGAIN.items()):
        command = click.option(name, is_flag=True, help=says)(command)
    return command


def selection_flags(command: Any) -> Any:
    """Which cells are meant; each may be given several times."""
    for name, says in reversed(_SELECTORS.items()):
        option = click.option(name, type=TEXT, multiple=True, metavar="PATTERN", help=says)
        command = option(command)
    return command


def selection_of(given: dict[str, Any]) -> Selection:
    """The selection that the flags ask for, taken out of ``given``."""
    from fairshare.runner.selection import Selection

    return Selection(tuple(given.pop("only", ())), tuple(given.pop("exclude", ())))


def choice_of(given: dict[str, Any]) -> tuple[bool, Choice]:
    """Whether a folder is gone on with, and how; the flags are taken out of ``given``."""
    from fairshare.runner.renewal import Choice

    retry_failed, force = given.pop("retry_failed"), given.pop("force")
    if retry_failed and force:
        raise click.UsageError("--force runs the failed cells too: leave --retry-failed out")
    choice = Choice(selection_of(given), retry_failed=retry_failed, force=force)
    return bool(given.pop("resume")) or retry_failed or force, choice


def selected(plan: RunPlan, selection: Selection) -> RunPlan:
    """The plan's cells that are meant.

    Raises:
        SpecError: a pattern matches none.
    """
    return plan.without(selection.left_out(plan))


def is_again(word: str) -> bool:
    """Whether a word of the command line says what to do with a folder that has results."""
    return word in _AGAIN
