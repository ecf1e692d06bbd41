"""What a scheduler decided, one JSON line for each event.

Every line has ``event`` and ``time_ns`` (CLOCK_MONOTONIC, which all processes of a machine share).
Those of a request (``arrived``, ``refused``, ``admitted``, ``preempted``, ``finished``,
``cancelled``) have ``id``, ``tenant``, ``prompt_tokens``, ``output_tokens`` so far and ``waiting``,
how many wait after the event. ``admitted`` lines have the ``counters`` of all tenants, if they are
few; ``counters`` lines have them however many there are. The first line is ``opened``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from fairshare.scheduling.policy import Request

FEW_TENANTS = 32
_FLUSH_S = 0.5

Counters = Callable[[], Mapping[str, float]]


class Decisions:
    """A file that decisions are appended to, twice a second and whenever the engine is idle.

    Without a path nothing is kept. The file is readable by its owner alone.
    """

    def __init__(self, path: str | None, counters: Counters) -> None:
        """``counters`` is asked for what the policy compares.

        Raises:
            OSError: the file cannot be opened.
        """
        self._file: int | None = None
        if path is not None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(path, flags, 0o600)
        self._counters = counters
        self._lines: list[dict[str, Any]] = []
        self._flushed_ns = 0

    def opened(self, **facts: Any) -> None:
        """The first line: what decides from now on."""
        self._add("opened", facts)

    def tell(self, event: str, request: Request, waiting: int, **more: Any) -> None:
        """A decision about one request."""
        if self._file is None:
            return
        told = {
            "id": request.id,
            "tenant": request.tenant,
            "prompt_tokens": request.prompt_tokens,
            "output_tokens": request.produced,
            "waiting": waiting,
        }
        self._add(event, told | more)

    def admitted(self, request: Request, waiting: int) -> None:
        """A request runs now, and was charged."""
        if self._file is None:
            return
        counters = self._counters()
        more = {"counters": dict(counters)} if len(counters) <= FEW_TENANTS else {}
        self.tell("admitted", request, waiting, **more)

    def flush(self, *, idle: bool) -> None:
        """The end of a step; ``idle`` if none follows by itself. Cheap, most of the time."""
        due = idle or time.monotonic_ns() - self._flushed_ns > _FLUSH_S * 1e9
        if self._file is None or not self._lines or not due:
            return
        self._add("counters", {"counters": dict(self._counters())})
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in self._lines)
        self._lines.clear()
        self._flushed_ns = time.monotonic_ns()
        _write(self._file, text.encode())

    def close(self) -> None:
        """Write what is left. Idempotent."""
        if self._file is not None:
            self.flush(idle=True)
            os.close(self._file)
            self._file = None

    def _add(self, event: str, told: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._lines.append({"event": event, "time_ns": time.monotonic_ns(), **told})


def _write(file: int, data: bytes) -> None:
    """All of it in one go, so that the lines of several engines stay whole."""
    written = os.write(file, data)
    while written < len(data):
        written += os.write(file, data[written:])
