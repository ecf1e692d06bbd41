"""What load processes and their parent tell each other over a private socket, pickled and framed.

Both ends are this program, and the socket lies in the run's private folder (0700).
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairshare.load.load import DriveReport, TenantLoad
from fairshare.records import TransportKind
from fairshare.spec.scenario import Timing

_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker is there: which one."""

    number: int


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker has to do."""

    loads: Sequence[TenantLoad]
    timing: Timing
    transport: TransportKind


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything that can be done before the barrier is done."""


@dataclass(frozen=True, slots=True)
class Go:
    """The barrier, on the monotonic clock, which all processes of a machine share."""

    origin_ns: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Send nothing more, and end when what is in flight has ended, or soon."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the cell begins."""

    name: str


@dataclass(frozen=True, slots=True)
class InFlight:
    """How many requests the worker's tenants have in flight, now and then."""

    requests: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Records:
    """Complete records, a JSON line each."""

    lines: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """The worker's report, after its last records."""

    report: DriveReport


@dataclass(frozen=True, slots=True)
class Failed:
    """What ended the worker's drive."""

    error: Exception


def send(writer: asyncio.StreamWriter, message: object) -> None:
    """Write one message; it leaves when the socket takes it."""
    data = pickle.dumps(message)
    writer.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)


async def receive(reader: asyncio.StreamReader) -> Any:
    """The next message, None at the end of the connection."""
    try:
        length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
        return pickle.loads(await reader.readexactly(length))  # noqa: S301  (our own child's)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
