"""--on-finish: the user's own command at the end of a run, told how that went."""

from __future__ import annotations

import shlex
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fairshare.cli.options import DURATION
from fairshare.errors import ExitCode, FairshareError

if TYPE_CHECKING:
    from fairshare.runner.hook import Hook
    from fairshare.spec.launcher import Engine

F = TypeVar("F", bound=Callable[..., Any])
_TIMEOUT_S = 300.0
_INFEASIBLE = "infeasible"


class Command(click.ParamType[tuple[str, ...]]):
    """A program and its arguments, quoted as for a shell, though none is asked."""

    name = "command"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The words; the program is looked for now, not after a night of measuring."""
        if isinstance(value, tuple):
            return value
        try:
            words = shlex.split(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        if not words:
            self.fail("it is empty", param, ctx)
        if shutil.which(words[0]) is None:
            self.fail(
                f"there is no program {words[0]!r} to run (a shell's own commands and pipes need "
                "a shell: sh -c '...')",
                param,
                ctx,
            )
        return tuple(words)


def finish_flags(command: F) -> F:
    """What to run at the end."""
    for option in reversed(
        [
            click.option(
                "--on-finish",
                type=Command(),
                metavar="CMD",
                help="Run this when all is over, also after a failure; FAIRSHARE_* variables say "
                "how it went.",
            ),
            click.option(
                "--on-finish-timeout",
                type=DURATION,
                help="How long that command may take (default: 5m).",
            ),
        ]
    ):
        command = option(command)
    return command


def hook_of(given: dict[str, Any]) -> Hook | None:
    """The command to run, taken out of what is ``given``; None where there is none."""
    from fairshare.runner.hook import Hook

    words, timeout_s = given.pop("on_finish"), given.pop("on_finish_timeout")
    if words is None:
        if timeout_s is not None:
            raise click.UsageError("--on-finish-timeout is for --on-finish, which is not given")
        return None
    return Hook(words, _TIMEOUT_S if timeout_s is None else timeout_s)


@dataclass(slots=True)
class Tally:
    """Listens to a run's events and counts its cells."""

    planned: int = 0
    ended: Counter[str] = field(default_factory=Counter)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Count the event, if it is about a cell."""
        if event["event"] == "sweep.started":
            self.planned = event["cells"]
        elif event["event"] == "search.asked":
            self.planned += 1
        elif event["event"] == "cell.finished":
            self.ended[event["status"]] += 1

    @property
    def over(self) -> bool:
        """Whether every cell has ended, and nothing is measured any more."""
        return 0 < self.planned <= self.ended.total() - self.ended[_INFEASIBLE]

    def variables(self) -> dict[str, str]:
        """The counts; those left are all that a call with --resume would run again."""
        ok, failed = self.ended["ok"], self.ended["failed"]
        return {
            "FAIRSHARE_CELLS_OK": str(ok),
            "FAIRSHARE_CELLS_FAILED": str(failed),
            "FAIRSHARE_CELLS_INFEASIBLE": str(self.ended[_INFEASIBLE]),
            "FAIRSHARE_CELLS_LEFT": str(max(0, self.planned - ok - failed)),
        }


def drawing_ahead(tally: Tally, engine: Engine) -> Callable[[Mapping[str, Any]], None]:
    """Listens after ``tally``: has what draws imported where nothing is measured.

    That takes a core for two or three seconds: while servers start that take longer, else while the
    last ones are stopped.
    """
    from fairshare.spec.launcher import Engine

    slow = engine in {Engine.VLLM, Engine.SGLANG, Engine.TGI}  # they import torch, and that twice

    def listen(event: Mapping[str, Any]) -> None:
        begun = slow and event["event"] == "server.starting"
        if begun or (event["event"] == "process.sigterm" and tally.over):
            from fairshare.analysis.workers import prepare

            prepare()

    return listen


@contextmanager
def finishing(hook: Hook | None, directory: Path) -> Iterator[Tally]:
    """Run the hook when the block ends, whatever way that is; its failure is told and no more.

    Yields a listener for the events of the run.
    """
    tally, began_s = Tally(), time.monotonic()
    code = int(ExitCode.OK)
    try:
        yield tally
    except BaseException as error:
        code = _code_of(error)
        raise
    finally:
        if hook is not None:
            told = {
                "FAIRSHARE_EXIT_CODE": str(code),
                "FAIRSHARE_DURATION_S": f"{time.monotonic() - began_s:.1f}",
                **tally.variables(),
                **_paths(directory),
            }
            if (problem := hook.run(told)) is not None:
                click.secho(f"--on-finish {hook.words[0]} {problem}", fg="yellow", err=True)


def _code_of(error: BaseException) -> int:
    """The exit code that the error leads to."""
    if isinstance(error, SystemExit):
        return int(error.code or ExitCode.OK)
    if isinstance(error, FairshareError):
        return int(error.exit_code)
    if isinstance(error, click.ClickException):
        return int(ExitCode.BAD_INPUT)
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED)
    return int(ExitCode.SOME_CELLS_FAILED)


def _paths(directory: Path) -> dict[str, str]:
    """Where results are; a file that has not been made is not named."""
    from fairshare.results import layout

    folder = directory.absolute()
    summary = folder / layout.ANALYSIS / layout.SUMMARY_JSON
    report = folder / layout.ANALYSIS / layout.REPORT
    return {
        "FAIRSHARE_RESULT_DIR": str(folder),
        "FAIRSHARE_SUMMARY": str(summary) if summary.is_file() else "",
        "FAIRSHARE_REPORT": str(report) if report.is_file() else "",
    }
