"""Now and then, how many requests each tenant has in flight: for whoever watches a cell run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

PULSE_S = 2.0
OnPulse = Callable[[Mapping[str, int]], None]


class Pulse:
    """Calls ``tell`` with requests in flight by tenant every two seconds, by the event loop.

    It runs where the requests are sent, so what it costs is lag that the self-check sees.
    """

    def __init__(self, tell: OnPulse | None, in_flight: Callable[[], Mapping[str, int]]) -> None:
        self._tell = tell
        self._in_flight = in_flight
        self._handle: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Tell from now on, if anybody listens."""
        if self._tell is not None:
            self._handle = asyncio.get_running_loop().call_later(PULSE_S, self._beat, self._tell)

    def end(self) -> None:
        """Tell no more."""
        if self._handle is not None:
            self._handle.cancel()

    def _beat(self, tell: OnPulse) -> None:
        self.begin()
        tell(self._in_flight())
