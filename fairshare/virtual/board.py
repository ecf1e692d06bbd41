"""What the simulated engines of one GPU know of each other: a small shared-memory file.

Each server owns one slot and publishes whether it has work and what its current step demands; it
reads the others' slots before each step. A sequence number in each slot tells a reader that a
writer was in the middle (a seqlock). A slot whose process has died is ignored and reused.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from fairshare.virtual.physics import Demand
from fairshare.virtual.processes import start_ticks
from fairshare.virtual.rules import Neighbour, SharingKind

SLOTS = 64
_LAYOUT = struct.Struct("<QqQQ?B6xq10d")
_SLOT_BYTES = 128
_SEQUENCE = struct.Struct("<Q")
_LIVENESS_S = 0.5
_KINDS = (SharingKind.TIMESLICE, SharingKind.MPS)


@dataclass(slots=True)
class Entry:
    """One server's slot.

    ``partition`` is a number for the whole GPU (0) or one MIG instance, ``demand`` is in seconds
    of the partition, ``step_s`` the current step's duration and ``due_s`` its end on the
    monotonic clock, ``busy_s`` the simulated seconds spent in steps so far.
    """

    pid: int
    start_ticks: int
    partition: int
    kind: SharingKind
    sm_share: float
    memory_bytes: int
    busy: bool = False
    demand: Demand = field(default_factory=lambda: Demand(0.0, 0.0, 0.0))
    step_s: float = 0.0
    due_s: float = 0.0
    busy_s: float = 0.0

    def pack(self, sequence: int) -> bytes:
        """The slot's bytes."""
        d = self.demand
        return _LAYOUT.pack(
            sequence, self.pid, self.start_ticks, self.partition, self.busy,
            _KINDS.index(self.kind), self.memory_bytes, self.sm_share,
            d.compute_s, d.memory_s, d.latency_s, d.host_s, d.attention_compute_s,
            d.attention_memory_s, self.step_s, self.due_s, self.busy_s,
        )  # fmt: skip

    @classmethod
    def unpack(cls, data: bytes) -> Entry:
        """The entry in a slot's bytes."""
        (_, pid, ticks, partition, busy, kind, memory, share, *demanded, step, due, used
         ) = _LAYOUT.unpack(data)  # fmt: skip
        demand = Demand(*demanded)
        return cls(
            pid, ticks, partition, _KINDS[kind], share, memory, busy, demand, step, due, used
        )


class Board:
    """The board of one simulated GPU, mapped into this process."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b")
        self._map = mmap.mmap(self._file.fileno(), SLOTS * _SLOT_BYTES)
        self._slot: int | None = None
        self._alive: dict[tuple[int, int], tuple[float, bool]] = {}

    @staticmethod
    def create(path: Path) -> None:
        """Make an empty board."""
        path.write_bytes(bytes(SLOTS * _SLOT_BYTES))

    def join(self, entry: Entry, *, limit_bytes: int | None = None) -> bool:
        """Take a free slot for ``entry`` unless memory in use would exceed ``limit_bytes``.

        Check and claim are one step under a lock, so that two servers cannot both take the
        last bytes.

        Raises:
            OSError: every slot is taken by a live process.
        """
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            if limit_bytes is not None:
                used = self.memory_used(entry.partition)
                if used + entry.memory_bytes > limit_bytes:
                    return False
            taken = {index for index, _ in self._live()}
            self._slot = next((i for i in range(SLOTS) if i not in taken), None)
            if self._slot is None:
                raise OSError(f"more than {SLOTS} servers on one simulated GPU")
            self.publish(entry)
            return True
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def publish(self, entry: Entry) -> None:
        """Write our slot."""
        if self._slot is None:
            return
        offset = self._slot * _SLOT_BYTES
        (sequence,) = _SEQUENCE.unpack_from(self._map, offset)
        sequence += sequence & 1  # a writer that died in the middle left it odd
        _SEQUENCE.pack_into(self._map, offset, sequence + 1)
        self._map[offset + 8 : offset + _LAYOUT.size] = entry.pack(sequence)[8:]
        _SEQUENCE.pack_into(self._map, offset, sequence + 2)

    def neighbours(self, partition: int) -> list[Neighbour]:
        """The other live servers of the partition that have work now."""
        return [
            Neighbour(entry.kind, entry.demand, entry.step_s, entry.sm_share)
            for index, entry in self._live()
            if index != self._slot and entry.busy and entry.partition == partition
        ]

    def entries(self) -> list[Entry]:
        """Every live server."""
        return [entry for _, entry in self._live()]

    def memory_used(self, partition: int) -> int:
        """Bytes that live servers hold in the partition."""
        return sum(e.memory_bytes for _, e in self._live() if e.partition == partition)

    def close(self) -> None:
        """Leave the board."""
        if self._slot is not None:
            offset = self._slot * _SLOT_BYTES
            self._map[offset : offset + _SLOT_BYTES] = bytes(_SLOT_BYTES)
            self._slot = None
        self._map.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _live(self) -> Iterator[tuple[int, Entry]]:
        for index in range(SLOTS):
            entry = self._read(index)
            if entry is not None and self._is_alive(entry):
                yield index, entry

    def _read(self, index: int) -> Entry | None:
        offset = index * _SLOT_BYTES
        for _ in range(1000):
            data = self._map[offset : offset + _LAYOUT.size]
            (before,) = _SEQUENCE.unpack_from(data)
            if before == 0:
                return None
            (after,) = _SEQUENCE.unpack_from(self._map, offset)
            if before == after and not before & 1:
                return Entry.unpack(data)
        return None  # its writer died in the middle

    def _is_alive(self, entry: Entry) -> bool:
        key = (entry.pid, entry.start_ticks)
        now = time.monotonic()
        checked, alive = self._alive.get(key, (0.0, False))
        overdue = entry.busy and now > entry.due_s + _LIVENESS_S / 10
        if not alive or now - checked > (_LIVENESS_S / 10 if overdue else _LIVENESS_S):
            alive = start_ticks(entry.pid) == entry.start_ticks
            self._alive[key] = (now, alive)
        return alive


def own_entry(partition: int, kind: SharingKind, sm_share: float, memory_bytes: int) -> Entry:
    """An idle entry for this process."""
    pid = os.getpid()
    return Entry(pid, start_ticks(pid) or 0, partition, kind, sm_share, memory_bytes)
