"""A line for each thing that happens in a sweep, and one a minute that says how it is going."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from fairshare.ui.course import Course
from fairshare.units import format_duration

Event = Mapping[str, Any]
Say = Callable[..., None]
"""``say(text, fg=colour, bold=..., nl=...)``, as ``click.secho``."""
_LONGEST_REASON = 160
_MOST_ASIDE = 5


class Progress:
    """Listens to events and says what is going on, one plain line at a time.

    ``ahead``: a cell is named when it begins, and its line is ended when it is over.
    """

    def __init__(self, say: Say = click.secho, *, ahead: bool = True) -> None:
        self.course = Course()
        self._say = say
        self._ahead = ahead
        self._open_line = ""
        self._known: dict[str, Callable[[Event], None]] = {
            "run.cleaned": self._cleaned,
            "sweep.resumed": self._resumed,
            "deployment.started": self._deployment,
            "deployment.restarted": self._restarted,
            "deployment.left": self._left_out,
            "sweep.short": self._short,
            "clocks.locked": self._locked,
            "server.ready": self._ready,
            "cell.started": self._started,
            "cell.finished": self._done,
            "stop.requested": self._stopping,
            "run.not_undone": self._not_undone,
            "deployment.moved": self._moved,
            "machine.lost": self._lost,
            "machine.left_out": self._not_taken,
        }

    def __call__(self, event: Event) -> None:
        """Print the event, if a person would want to know."""
        if (known := self._known.get(event["event"])) is not None:
            known(event)
        self.course.take(event)

    def tell(self) -> None:
        """How it is going now, on one line with the time of day."""
        now_t = time.time()
        self._interrupt()
        clock = time.strftime("%H:%M:%S", time.localtime(now_t))
        self._say(f"  {clock}  {self.course.summary(now_t)}")

    def _interrupt(self) -> None:
        """End a line that waits for its end: it is said again then."""
        if self._open_line:
            self._say("")
            self._open_line = ""

    def _cleaned(self, event: Event) -> None:
        self._say(f"cleaned up after a killed run ({event['run']})")
        for problem in event["failed"]:
            self._say(f"  {problem}", fg="yellow")

    def _not_undone(self, event: Event) -> None:
        self._say(f"not put back: {event['problem']}", fg="red")
        self._say("fairshare clean tries it again")

    def _lost(self, event: Event) -> None:
        self._say(f"lost {event['machine']}: {_shortened(str(event['reason']))}", fg="yellow")
        if left := len(event["left"]):
            self._say(f"  {left} cell{'s are' if left > 1 else ' is'} run elsewhere")

    def _moved(self, event: Event) -> None:
        reason = _shortened(str(event["reason"]))
        self._say(f"given up by {event['machine']}, tried elsewhere: {reason}", fg="yellow")

    def _not_taken(self, event: Event) -> None:
        self._say(f"left out: {event['machine']}: {event['reason']}", fg="yellow")

    def _resumed(self, event: Event) -> None:
        if kept := event["kept"]:
            failed = len(event["kept_failed"])
            again = f" ({failed} of them failed; --retry-failed runs these again)" if failed else ""
            self._say(f"{kept} cell{'s are' if kept > 1 else ' is'} there already{again}")
        for cell, reason in event["damaged"].items():
            self._say(f"damaged, so it does not count: {cell}: {reason}", fg="yellow")
        if aside := event["superseded"]:
            rest = f" and {len(aside) - _MOST_ASIDE} more" * (len(aside) > _MOST_ASIDE)
            self._say(f"put aside in superseded/: {', '.join(aside[:_MOST_ASIDE])}{rest}")

    def _restarted(self, event: Event) -> None:
        self._say(f"  {event['deployment']} is started once more, for the cells that remain")

    def _left_out(self, event: Event) -> None:
        self._say(f"  {event['cells']} cells are left out: {event['reason']}", fg="yellow")

    def _short(self, event: Event) -> None:
        self._say(f"stopping: {event['reason']}", fg="yellow")

    def _locked(self, event: Event) -> None:
        self._say(f"  clocks of GPU {event['gpu']} locked to {event['mhz']} MHz")

    def _deployment(self, event: Event) -> None:
        count = len(event["cells"])
        what = f"{event['deployment']}: {count} cell{'s' * (count != 1)}{_where(event)}"
        self._say(what, bold=True)

    def _ready(self, event: Event) -> None:
        start = f"{'cold' if event.get('cold') else 'warm'} start"
        took = format_duration(event.get("start_s") or 0.0)
        self._say(f"  server {event.get('server')} ready after {took} ({start}){_where(event)}")

    def _started(self, event: Event) -> None:
        if self._ahead and not _where(event):
            self._open_line = self._name(event["cell"])
            self._say(self._open_line, nl=False)

    def _name(self, cell: str) -> str:
        return f"  [{self.course.done + 1}/{self.course.cells}] {cell}"

    def _done(self, event: Event) -> None:
        status, reason = event["status"], event.get("reason")
        where = _where(event)
        begun = bool(where) or self.course.cell is not None
        name = self._name(event["cell"]) + where if begun and not self._open_line else ""
        if status == "ok":
            self._say(f"{name}  ok" + (f" ({reason})" if reason else ""), fg="green")
        elif status == "infeasible":
            self._say(f"  infeasible: {event['cell']}: {reason}", fg="yellow")
        else:
            first_line = str(reason).partition("\n")[0]  # the last screen has all of it
            told = f"{status}: {_shortened(first_line)}"
            self._say(f"{name}  {told}" if name else f"  {event['cell']}: {told}", fg="red")
        self._open_line = ""

    def _stopping(self, event: Event) -> None:
        self._interrupt()
        if event["how"] == "at once":
            self._say("stopping at once: the servers are killed; what was changed is put back")
            return
        self._say(
            "stopping: nothing more is sent, what is in flight has a few seconds to end, servers "
            "are asked to end, and what was changed is put back"
        )
        self._say("(Ctrl-C again stops at once: it kills the servers instead of asking them)")


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 3] + "..."


def _where(event: Event) -> str:
    """Behind what happened on one of several machines: which."""
    return f" on {event['machine']}" if "machine" in event else ""
