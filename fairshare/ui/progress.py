"""A line on the terminal for each thing that happens in a sweep."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

from fairshare.units import format_duration

Event = Mapping[str, Any]
_LONGEST_REASON = 160


class Progress:
    """Listens to events and says what is going on, one plain line at a time."""

    def __init__(self) -> None:
        self._cells = 0
        self._finished = 0
        self._say: dict[str, Callable[[Event], None]] = {
            "run.cleaned": self._cleaned,
            "sweep.started": self._begun,
            "deployment.started": self._deployment,
            "server.ready": self._ready,
            "cell.started": self._started,
            "cell.finished": self._done,
            "stop.requested": self._stopping,
            "run.not_undone": self._not_undone,
        }

    def __call__(self, event: Event) -> None:
        """Print the event, if a person would want to know."""
        if (say := self._say.get(event["event"])) is None:
            return
        try:
            say(event)
        except OSError:
            # The terminal was closed, or the reader of the pipe went away. Measurements and
            # cleaning up go on; what is still said goes nowhere.
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  (a device, not a path of ours)
                os.dup2(nowhere.fileno(), sys.stdout.fileno())

    def _cleaned(self, event: Event) -> None:
        click.echo(f"cleaned up after a killed run ({event['run']})")
        for problem in event["failed"]:
            click.secho(f"  {problem}", fg="yellow")

    def _not_undone(self, event: Event) -> None:
        click.secho(f"not put back: {event['problem']}", fg="red")
        click.echo("fairshare clean tries it again")

    def _begun(self, event: Event) -> None:
        self._cells = event["cells"]

    def _deployment(self, event: Event) -> None:
        count = len(event["cells"])
        click.secho(f"{event['deployment']}: {count} cell{'s' * (count != 1)}", bold=True)

    def _ready(self, event: Event) -> None:
        start = f"{'cold' if event.get('cold') else 'warm'} start"
        took = format_duration(event.get("start_s") or 0.0)
        click.echo(f"  server {event.get('server')} ready after {took} ({start})")

    def _started(self, event: Event) -> None:
        click.echo(f"  [{self._finished + 1}/{self._cells}] {event['cell']}", nl=False)

    def _done(self, event: Event) -> None:
        status, reason = event["status"], event.get("reason")
        self._finished += status != "infeasible"  # those are not among the cells to run
        if status == "ok":
            click.secho("  ok" + (f" ({reason})" if reason else ""), fg="green")
        elif status == "infeasible":
            click.secho(f"  infeasible: {event['cell']}: {reason}", fg="yellow")
        else:
            first_line = str(reason).partition("\n")[0]  # the last screen has all of it
            click.secho(f"  {event['cell']}: {status}: {_shortened(first_line)}", fg="red")

    def _stopping(self, event: Event) -> None:
        click.echo(f"\nstopping {event['how']}; everything is put back before this ends")
        if event["how"] != "at once":
            click.echo("(Ctrl-C again kills the servers instead of asking them)")


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 3] + "..."
