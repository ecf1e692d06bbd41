"""What helps, by what was lacking."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from fairshare.load.core_time import CoreTime
from fairshare.load.remedies import remedy
from fairshare.records import TransportKind


def test_who_waits_for_a_core_needs_one_and_no_flag() -> None:
    """More processes do not help where there is no core for the first."""
    given: dict[str, Any] = {"tenants": 4, "transport": TransportKind.STREAM}
    starved = remedy(used_fraction=0.1, waited_fraction=0.4, **given)
    assert "waited for a core 40%" in starved
    assert "--load-processes" not in starved
    assert "--load-processes" in remedy(used_fraction=0.95, waited_fraction=0.2, **given)
    assert "--load-processes" in remedy(used_fraction=0.01, waited_fraction=0.02, **given)


def test_waiting_for_a_core_is_seen() -> None:
    """Two threads on one core: each waits while the other runs."""
    cores = os.sched_getaffinity(0)
    stop = threading.Event()

    def spin() -> None:
        os.sched_setaffinity(0, {min(cores)})
        while not stop.is_set():
            time.sleep(0)

    rival = threading.Thread(target=spin)
    os.sched_setaffinity(0, {min(cores)})
    try:
        rival.start()
        watched = CoreTime()
        watched.begin()
        until_s = time.monotonic() + 0.3
        while time.monotonic() < until_s:
            os.sched_yield()
        watched.end()
    finally:
        stop.set()
        rival.join()
        os.sched_setaffinity(0, cores)
    assert watched.waited_s > 0.001
    assert watched.used_s > 0.01
