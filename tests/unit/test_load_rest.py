"""Under load, looks at the sockets are kept apart; without it nothing waits."""

from __future__ import annotations

import pytest

from fairshare.load import rest
from fairshare.load.rest import MAX_REST_S, REST_PER_CHUNK_S, Rest


class Clock:
    """A clock that stands still but for sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept_s: list[float] = []

    def monotonic(self) -> float:
        """What time it is."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept_s.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the module."""
    found = Clock()
    monkeypatch.setattr(rest, "time", found)
    return found


def look(breather: Rest, chunks: int) -> None:
    """One look that finds so many chunks."""
    breather.earn(breather.take(), chunks)


def test_looks_that_find_little_wait_for_nothing(clock: Clock) -> None:
    """Chunks that come slower than 10,000/s are read the moment they are there."""
    breather = Rest()
    for _ in range(3):
        look(breather, 1)
        clock.now_s += 1.01 * REST_PER_CHUNK_S
    assert clock.slept_s == []


def test_looks_that_find_much_are_kept_apart(clock: Clock) -> None:
    """The next waits as long as the last one earned, the time that parsing took included."""
    breather = Rest()
    look(breather, 3)
    clock.now_s += REST_PER_CHUNK_S
    look(breather, 1000)
    assert clock.slept_s == [pytest.approx(2 * REST_PER_CHUNK_S)]
    breather.take()
    assert clock.slept_s[1:] == [pytest.approx(MAX_REST_S)]
    look(breather, 1000)
    clock.now_s += 2 * MAX_REST_S
    breather.take()
    assert len(clock.slept_s) == 2
