"""What a scheduler decided, one JSON line for each event, as the gateway writes them.

Every line has ``event`` and ``time_ns`` (CLOCK_MONOTONIC, which all processes of a machine share).
The first is ``started``. ``policy_failed`` says (with ``error``) that from then on requests go in
the order of arrival. Those of a request (``arrived``, ``refused``, ``admitted``, ``preempted``,
``finished``, ``failed``, ``cancelled``) have its name in the engine (``request``), ``tenant``,
``prompt_tokens``, ``max_output_tokens``, ``output_tokens`` so far, and how many are ``queued``
after the event. ``admitted`` lines have the ``counters`` of all tenants where there are at most 32;
``state`` lines, twice a second while requests come and go, where there are at most 1000.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from fairshare.scheduling.policy import Request

FEW_TENANTS = 32
MOST_TENANTS = 1000
_FLUSH_S = 0.5

_log = logging.getLogger("vllm.fairshare")

Line = dict[str, Any]
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
        self._lines: list[Line] = []
        self._tenants = 0  # as many as there were at last; they seldom become few again
        self._flushed_ns = 0

    def started(self, **facts: Any) -> None:
        """The first line: what decides from now on."""
        if self._file is not None:
            self.keep({"event": "started", "time_ns": time.monotonic_ns(), **facts})

    def failed(self, error: str) -> None:
        """The policy has made a mistake, and decides no more."""
        if self._file is not None:
            self.keep({"event": "policy_failed", "time_ns": time.monotonic_ns(), "error": error})

    def tell(self, event: str, request: Request, queued: int, **more: Any) -> None:
        """A decision about one request."""
        self.keep(self.made(event, request, queued, **more))

    def made(self, event: str, request: Request, queued: int, **more: Any) -> Line | None:
        """The line of a decision that may yet be taken back; None where nothing is kept."""
        if self._file is None:
            return None
        return {
            "event": event,
            "time_ns": time.monotonic_ns(),
            "request": request.id,
            "tenant": request.tenant,
            "prompt_tokens": request.prompt_tokens,
            "max_output_tokens": request.max_output_tokens,
            "output_tokens": request.produced,
            "queued": queued,
            **more,
        }

    def admission(self, request: Request, queued: int) -> Line | None:
        """The line of a request that was taken, with what it made of the counters."""
        if self._file is None or self._tenants > FEW_TENANTS:
            return self.made("admitted", request, queued)
        return self.made("admitted", request, queued, counters=self._asked())

    def keep(self, line: Line | None) -> None:
        """A line that stands."""
        if line is not None:
            self._lines.append(line)

    def flush(self, *, idle: bool) -> None:
        """The end of a step; ``idle`` if none follows by itself. Cheap, most of the time."""
        due = idle or time.monotonic_ns() - self._flushed_ns > _FLUSH_S * 1e9
        if self._file is None or not self._lines or not due:
            return
        now_ns = time.monotonic_ns()
        if self._tenants <= MOST_TENANTS:
            self.keep({"event": "state", "time_ns": now_ns, "counters": self._asked()})
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in self._lines)
        self._lines.clear()
        self._flushed_ns = now_ns
        try:
            _write(self._file, text.encode())
        except OSError as error:  # a full disk is no reason to serve nobody
            _log.warning("fairshare: decisions are no longer written: %s", error)
            os.close(self._file)
            self._file = None

    def _asked(self) -> dict[str, float]:
        counters = dict(self._counters())
        self._tenants = len(counters)
        return counters

    def close(self) -> None:
        """Write what is left. Idempotent."""
        self.flush(idle=True)
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _write(file: int, data: bytes) -> None:
    """All of it in one go, so that the lines of several engines stay whole."""
    written = os.write(file, data)
    while written < len(data):
        written += os.write(file, data[written:])
