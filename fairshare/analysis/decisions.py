"""What a scheduler wrote down of its decisions: its counters over time, and whether it idled.

A gateway tells how many requests were queued, running and allowed; a policy inside the engine tells
how many were waiting. Both tell what the policy compares (``counters``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from fairshare.errors import Location, ResultsError
from fairshare.results.packed import opened, stored
from fairshare.units import NS_PER_S

_MOST_POINTS = 2000  # of each tenant's line in a figure


@dataclass(frozen=True, slots=True)
class Decisions:
    """A log of decisions. Times are seconds since its first line."""

    counters: Mapping[str, tuple[list[float], list[float]]]
    """By tenant: when, and the counter then."""
    idle_while_queued: float | None
    """Share of the time with requests queued and room for one. None where that is not told."""
    window: float | None
    """How many requests a gateway let run at once, at most; None where it does not tell."""


def read_decisions(path: Path) -> Decisions | None:
    """The log; None where there is none, or nothing in it.

    A last line that was cut short is passed over: whoever wrote it was killed.

    Raises:
        ResultsError: another line is damaged, with its place.
    """
    if (there := stored(path)) is None:
        return None
    counters: dict[str, tuple[list[float], list[float]]] = {}
    idling = _Idling()
    start = None
    for line in _lines(there):
        when = float(line["time_ns"]) / NS_PER_S
        start = when if start is None else start
        idling.see(when, line)
        for tenant, value in _told(line).items():
            times, values = counters.setdefault(tenant, ([], []))
            times.append(when - start)
            values.append(float(value))
    if start is None:
        return None
    thinned = {tenant: _thinned(*points) for tenant, points in sorted(counters.items())}
    return Decisions(thinned, idling.share, idling.window)


class _Idling:
    """Adds up the time in which something could have been served and was not."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._idle = self._told = False
        self._idle_s = self._all_s = 0.0
        self._tokens_limited = False
        self.window: float | None = None

    def see(self, when: float, line: Mapping[str, Any]) -> None:
        """What a line says holds until the next one."""
        self._tokens_limited |= line.get("window_tokens") is not None
        if self._since is not None and when > self._since:
            self._all_s += when - self._since
            self._idle_s += (when - self._since) * self._idle
        if isinstance(queued := line.get("queued"), int):
            running, window = line.get("running"), line.get("window")
            if isinstance(running, int) and isinstance(window, int | float):
                self._told = True
                self.window = max(self.window or 0.0, float(window))
                self._idle = queued > 0 and running < int(window)
        self._since = when

    @property
    def share(self) -> float | None:
        """None where the lines do not tell, or where tokens limit what may run as well."""
        if not self._told or self._tokens_limited or not self._all_s:
            return None
        return self._idle_s / self._all_s


def _told(line: Mapping[str, Any]) -> dict[str, Any]:
    """The counters of a line: of all tenants, else of the one that it is about."""
    found = line.get("counters")
    if not isinstance(found, dict):
        found = {line.get("tenant"): line.get("counter")}
    return {
        tenant: value
        for tenant, value in found.items()
        if isinstance(tenant, str) and isinstance(value, int | float)
    }


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            yield _line(line, path, number)


def _line(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        loaded = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ResultsError(f"damaged: {error}", where=Location(path, number)) from error
    if not isinstance(loaded, dict) or type(loaded.get("time_ns")) is not int:
        raise ResultsError("damaged: no object with a time_ns", where=Location(path, number))
    return loaded


def _thinned(times: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """Every so-manieth point, and the last one."""
    step = max(1, len(times) // _MOST_POINTS)
    last = [len(times) - 1] if (len(times) - 1) % step else []
    chosen = [*range(0, len(times), step), *last]
    return [times[i] for i in chosen], [values[i] for i in chosen]
