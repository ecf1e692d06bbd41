"""What happened during a run, in order: one JSON line each in ``events.jsonl``."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import orjson

Listener = Callable[[Mapping[str, Any]], None]
_TAIL_BYTES = 1 << 16


class EventLog:
    """Appends events to a file as they happen and tells listeners (the live view) of each.

    An event is ``{"t": wall-clock seconds, "event": name, ...fields}``. Names are dotted, past
    tense where something was done (``server.ready``, ``cell.started``, ``process.sigkilled``).
    Each is handed to the kernel in one write, so it survives our own death; what a killed or cut
    off write has left of a line is removed before the next one.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._listeners: list[Listener] = []
        self._file: IO[bytes] | None = None
        self._torn = False
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
            _end_at_a_line(self._file)

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
                self._write(self._file, orjson.dumps(entry, default=str) + b"\n")
        for listener in self._listeners:
            listener(entry)

    def _write(self, file: IO[bytes], line: bytes) -> None:
        if self._torn:
            _end_at_a_line(file)
            self._torn = False
        self._torn = os.write(file.fileno(), line) < len(line)

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


def read_events(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The events of an open log, in order; lines that are none are passed over.

    The last one may be cut short: its run was killed, or is writing it.
    """
    for line in file:
        if not line.endswith(b"\n"):
            return
        with contextlib.suppress(orjson.JSONDecodeError):
            entry = orjson.loads(line)
            if isinstance(entry, dict) and isinstance(entry.get("event"), str):
                yield entry


def _end_at_a_line(file: IO[bytes]) -> None:
    """Cut off what stands behind the last line end: half an event says nothing."""
    size = end = os.fstat(file.fileno()).st_size
    while end > 0:
        begin = max(0, end - _TAIL_BYTES)
        found = os.pread(file.fileno(), end - begin, begin).rfind(b"\n")
        if found >= 0:
            end = begin + found + 1
            break
        end = begin
    if end < size:
        os.ftruncate(file.fileno(), end)
