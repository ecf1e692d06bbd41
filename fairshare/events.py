"""What happened during a run, in order: one JSON line each in ``events.jsonl``."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import orjson

Listener = Callable[[Mapping[str, Any]], None]


class EventLog:
    """Appends events to a file as they happen and tells listeners (the live view) of each.

    An event is ``{"t": wall-clock seconds, "event": name, ...fields}``. Names are dotted, past
    tense where something was done (``server.ready``, ``cell.started``, ``process.sigkilled``).
    """

    def __init__(self, path: Path | None = None) -> None:
        self._listeners: list[Listener] = []
        self._file: IO[bytes] | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` with each event from now on."""
        self._listeners.append(listener)

    def emit(self, event: str, **fields: Any) -> None:
        """Record that ``event`` happened now."""
        entry = {"t": time.time(), "event": event, **fields}
        if self._file is not None:
            # A full disk must not keep us from putting the device back: the log has a gap then,
            # and whoever writes results says that the disk is full.
            with contextlib.suppress(OSError):
                os.write(self._file.fileno(), orjson.dumps(entry, default=str) + b"\n")
        for listener in self._listeners:
            listener(entry)

    def close(self) -> None:
        """Close the file; later events reach the listeners only."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
