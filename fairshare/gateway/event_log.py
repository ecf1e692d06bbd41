"""The gateway's decisions, a JSON line each, with the state that they were taken in.

Written by a turn of the event loop at a time, so that a decision costs no system call. A log that
cannot be written any more is given up, aloud; serving goes on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import orjson

from fairshare.errors import SpecError

FORMAT_VERSION = 1
_FLUSH_BYTES = 256 << 10


class EventLog:
    """Appends lines to a file that only its owner can read."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file: int | None = os.open(path, flags, 0o600)
        except OSError as error:
            raise SpecError(f"cannot write the event log {path}: {error.strerror}") from None
        self._path = path
        self._lines: list[bytes] = []
        self._size = 0

    def write(self, event: str, now_s: float, **facts: Any) -> None:
        """Add a line; ``now_s`` is on the clock of ``time.monotonic``."""
        line = orjson.dumps(
            {"event": event, "time_ns": round(now_s * 1e9), **facts},
            option=orjson.OPT_APPEND_NEWLINE,
        )
        self._lines.append(line)
        self._size += len(line)
        if self._size > _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has come together."""
        data, self._lines, self._size = b"".join(self._lines), [], 0
        try:
            while data and self._file is not None:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            sys.stderr.write(f"the event log {self._path} is given up: {error.strerror}\n")
            self.close()

    def close(self) -> None:
        """No more lines."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
