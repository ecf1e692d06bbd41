"""What arrives on many sockets is read and stamped before any of it is parsed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from fairshare.load.poller import Poller


class Owner:
    """Notes what it is told, in a log that all owners share."""

    def __init__(self, name: str, log: list[str], poller: Poller) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.stamps: list[int] = []
        self._name, self._log, self._poller = name, log, poller
        self.told = asyncio.Event()
        poller.watch(self.ours.fileno(), self.receive, self)

    def receive(self, size: int) -> bytes:
        """Read from the socket."""
        data = self.ours.recv(size)
        self._log.append(f"{self._name} read")
        return data

    def parse(self, now_ns: int, data: bytes) -> None:
        """Bytes came."""
        self.stamps.append(now_ns)
        self._note(f"{self._name} parse {data.decode()}")

    def lost(self, now_ns: int, error: OSError | None) -> None:
        """The other end closed."""
        self._poller.forget(self.ours.fileno())
        self._note(f"{self._name} lost {error}")

    def write_more(self) -> None:
        """The socket takes bytes again."""
        self._poller.write_too(self.ours.fileno(), wanted=False)
        self._note(f"{self._name} write")

    def close(self) -> None:
        """Close both ends."""
        self.ours.close()
        self.theirs.close()

    def _note(self, what: str) -> None:
        self._log.append(what)
        self.told.set()


@pytest.fixture
def log() -> list[str]:
    """What happened, in order."""
    return []


@pytest.fixture
async def poller() -> AsyncIterator[Poller]:
    """One in the test's event loop."""
    found = Poller()
    yield found
    found.close()


@pytest.fixture
async def pair(poller: Poller, log: list[str]) -> AsyncIterator[tuple[Owner, Owner]]:
    """Two sockets that are watched."""
    owners = Owner("a", log, poller), Owner("b", log, poller)
    yield owners
    for owner in owners:
        owner.close()


async def test_all_that_is_ready_is_read_before_any_is_parsed(
    pair: tuple[Owner, Owner], log: list[str]
) -> None:
    """The stamp of the second does not wait for the first one's parsing."""
    a, b = pair
    a.theirs.send(b"1")
    b.theirs.send(b"2")
    await asyncio.gather(a.told.wait(), b.told.wait())
    assert log == ["a read", "b read", "a parse 1", "b parse 2"]
    assert a.stamps <= b.stamps


async def test_an_end_is_told_after_the_last_bytes(
    pair: tuple[Owner, Owner], log: list[str]
) -> None:
    """What the other end said before it closed is not lost."""
    a, b = pair
    a.theirs.send(b"last")
    a.theirs.close()
    while "a lost None" not in log:
        a.told.clear()
        await a.told.wait()
    assert log == ["a read", "a parse last", "a read", "a lost None"]
    b.theirs.send(b"on")
    await b.told.wait()
    assert log[-1] == "b parse on"


async def test_who_wants_to_write_is_told_when_that_is_possible(
    pair: tuple[Owner, Owner], poller: Poller, log: list[str]
) -> None:
    """And only then, and only who asked."""
    poller.write_too(pair[0].ours.fileno(), wanted=True)
    await pair[0].told.wait()
    assert log == ["a write"]


async def test_what_is_forgotten_is_not_read(
    pair: tuple[Owner, Owner], poller: Poller, log: list[str]
) -> None:
    """Its bytes stay where they are."""
    a, b = pair
    poller.forget(a.ours.fileno())
    a.theirs.send(b"1")
    b.theirs.send(b"2")
    await b.told.wait()
    assert log == ["b read", "b parse 2"]
