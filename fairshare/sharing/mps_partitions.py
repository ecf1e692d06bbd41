"""Static SM partitions of MPS (CUDA 13.1 and newer): SMs of each tenant's own, in whole chunks.

The daemon has to be started with ``-S``, and then takes only clients that name a partition. How
many SMs a chunk has depends on the GPU, so one is tried first. A partition ends with its daemon,
which is what undoes it after the run has died.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fairshare.errors import PartitionError
from fairshare.sharing.mps_control import MpsControl
from fairshare.sharing.tools import Answer

# ``<uuid>/<id>`` in NVIDIA's documentation, ``Partition <id> created`` in builds that are in use.
_ADDED = re.compile(r"GPU-[0-9a-f-]+/(\S+)|Partition\s+(\S+)\s+created")


@dataclass(frozen=True, slots=True)
class Partition:
    """Some SMs of one GPU. ``name`` is what its client has in ``CUDA_MPS_SM_PARTITION``."""

    name: str
    chunks: int
    sm_count: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A row of ``lspart``; the row of the GPU itself has the id ``-`` and says what is free."""

    id: str
    free_chunks: int | None
    used_chunks: int
    used_sms: int


def parse_partitions(text: str) -> list[Listed]:
    """The rows of ``lspart``: GPU, partition, free and used chunks, free and used SMs, clients."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 6 and words[0].startswith("GPU-") and words[3].isdigit():
            free = int(words[2]) if words[2].isdigit() else None
            found.append(Listed(words[1], free, int(words[3]), int(words[5])))
    return found


def parse_added(text: str) -> str | None:
    """The id of the partition that ``sm_partition add`` has made; None if it has made none."""
    found = _ADDED.search(text)
    return (found[1] or found[2]).rpartition("/")[2] if found else None


def apportion(shares: Sequence[float], chunks: int) -> list[int]:
    """Whole chunks by largest remainder, at least one each.

    Raises:
        PartitionError: there are fewer chunks than shares.
    """
    if chunks < len(shares):
        raise PartitionError(
            f"{len(shares)} tenants cannot have SMs of their own: there are {chunks} chunks of them"
        )
    exact = [share / sum(shares) * chunks for share in shares]
    counts = [max(1, math.floor(each)) for each in exact]
    # The last to get one is who is furthest above its share, the first who is furthest below.
    while sum(counts) > chunks:
        over = max(
            (n for n in range(len(counts)) if counts[n] > 1), key=lambda n: counts[n] - exact[n]
        )
        counts[over] -= 1
    while sum(counts) < chunks:
        counts[max(range(len(counts)), key=lambda n: exact[n] - counts[n])] += 1
    return counts


@asynccontextmanager
async def sm_partitions(
    control: MpsControl, uuid: str, shares: Sequence[float]
) -> AsyncIterator[list[Partition]]:
    """A partition for each share of the GPU ``uuid``, of all its chunks; removed at the end.

    Raises:
        PartitionError: they cannot be made, or are not listed as they were made.
    """
    chunk_sms, chunks = await _chunks(control, uuid)
    made: list[Partition] = []
    try:
        for count in apportion(shares, chunks):
            made.append(Partition(await _add(control, uuid, count), count, count * chunk_sms))
        await _check(control, made)
        yield made
    finally:
        for partition in made:
            await _remove(control, uuid, partition.name)


async def _chunks(control: MpsControl, uuid: str) -> tuple[int, int]:
    """SMs of a chunk, and how many chunks there are: seen with a partition of one chunk."""
    name = await _add(control, uuid, 1)
    try:
        answer = await control.ask("lspart")
        rows = {row.id: row for row in parse_partitions(answer.output)}
        probe, gpu = rows.get(_id(name)), rows.get("-")
        if probe is None or gpu is None or gpu.free_chunks is None or probe.used_chunks != 1:
            raise _unexpected("a partition of one chunk is not listed", answer)
        return probe.used_sms, gpu.free_chunks + gpu.used_chunks
    finally:
        await _remove(control, uuid, name)


async def _add(control: MpsControl, uuid: str, chunks: int) -> str:
    answer = await control.ask(f"sm_partition add {uuid} {chunks}")
    identifier = parse_added(answer.output)
    if identifier is None:
        raise _unexpected(f"no partition of {chunks} chunks of SMs could be made", answer)
    return f"{uuid}/{identifier}"


async def _check(control: MpsControl, made: Sequence[Partition]) -> None:
    answer = await control.ask("lspart")
    rows = {row.id: (row.used_chunks, row.used_sms) for row in parse_partitions(answer.output)}
    if any(rows.get(_id(each.name)) != (each.chunks, each.sm_count) for each in made):
        raise _unexpected("the partitions of SMs are not listed as they were made", answer)


async def _remove(control: MpsControl, uuid: str, name: str) -> None:
    """What cannot be removed ends with the daemon, which is verified to end."""
    if await control.answers():
        await control.ask(f"sm_partition rm {uuid} {_id(name)}")


def _id(name: str) -> str:
    return name.rpartition("/")[2]


def _unexpected(problem: str, answer: Answer) -> PartitionError:
    return PartitionError(problem, evidence=answer.lines)
