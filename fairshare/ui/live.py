"""The live view: a table on a terminal, plain lines elsewhere, drawn by a thread of its own.

A terminal may take its time (a slow line, Ctrl-S), and requests must not wait for it: whoever emits
events only puts them into a queue.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.text import Text

from fairshare.ui.board import board
from fairshare.ui.progress import Progress

Event = Mapping[str, Any]
MINUTE_S = 60.0
_TICK_S = 1.0
_LAST_WORDS_S = 5.0


class _View(Protocol):
    """Shows events; ``patience_s`` is how long it may be left alone before a ``tick``."""

    @property
    def patience_s(self) -> float: ...
    def take(self, event: Event) -> None: ...
    def tick(self) -> None: ...
    def close(self) -> None: ...


class PlainView:
    """Lines for a file, a pipe, or a terminal that can do no more."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress = Progress()
        self._clock = clock
        self._told_s = clock()

    @property
    def patience_s(self) -> float:
        """Until the next line is due."""
        return max(0.0, self._told_s + MINUTE_S - self._clock())

    def take(self, event: Event) -> None:
        """Print the event, if a person would want to know."""
        self._progress(event)
        self.tick()

    def tick(self) -> None:
        """Once a minute, how it is going."""
        if not self.patience_s:
            self._told_s = self._clock()
            self._progress.tell()

    def close(self) -> None:
        """Nothing is left to be said."""


class TerminalView:
    """A table at the bottom that is drawn anew, and lines that scroll away above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(self._say, ahead=False)
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()
        console.show_cursor(True)  # a killed run would leave the terminal without one

    @property
    def patience_s(self) -> float:
        """While requests are measured, what they themselves give rise to is enough."""
        return MINUTE_S if self._progress.course.phase else _TICK_S

    def take(self, event: Event) -> None:
        """Take the event in, print it if a person would want to know, and draw."""
        self._progress(event)
        self.tick()

    def tick(self) -> None:
        """Draw what is known now."""
        self._live.update(board(self._progress.course, time.time()), refresh=True)

    def close(self) -> None:
        """Leave the lines, and no table."""
        self._live.stop()

    def _say(self, text: str, *, fg: str = "", bold: bool = False, nl: bool = True) -> None:
        style = f"{'bold ' if bold else ''}{fg}".strip()
        self._console.print(Text(text, style=style), end="\n" if nl else "", soft_wrap=True)


@contextmanager
def live_view() -> Iterator[Callable[[Event], None]]:
    """A listener for events, shown until the block ends; all of them are shown by then."""
    console = Console(highlight=False)
    able = sys.stdout is not None and sys.stdout.isatty() and not console.is_dumb_terminal
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    make = (lambda: TerminalView(console)) if able else PlainView
    thread = threading.Thread(target=_show, args=(make, events), name="live view", daemon=True)
    thread.start()
    try:
        yield events.put
    finally:
        events.put(None)
        thread.join(_LAST_WORDS_S)


def _show(make: Callable[[], _View], events: queue.SimpleQueue[Event | None]) -> None:
    view: _View = PlainView()
    with _despite_a_lost_terminal():
        view = make()
    while True:
        try:
            event = events.get(timeout=view.patience_s)
        except queue.Empty:
            with _despite_a_lost_terminal():
                view.tick()
            continue
        with _despite_a_lost_terminal():
            if event is None:
                view.close()
            else:
                view.take(event)
        if event is None:
            return


@contextmanager
def _despite_a_lost_terminal() -> Iterator[None]:
    """The terminal was closed, or the reader of the pipe went away.

    Measurements and cleaning up go on; what is still said goes nowhere.
    """
    try:
        yield
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with contextlib.suppress(OSError):
            os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
