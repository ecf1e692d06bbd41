"""Shared-memory segments: ours are removed, anybody else's never."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from multiprocessing import resource_tracker, shared_memory

import pytest

from fairshare.processes.segments import SHM, Segment, existing, held_by, remove_unheld


@pytest.fixture
def memory() -> Iterator[shared_memory.SharedMemory]:
    """A segment that this process maps; nobody but the test removes it."""
    made = shared_memory.SharedMemory(f"psm_{secrets.token_hex(4)}", create=True, size=4096)
    resource_tracker.unregister(f"/{made.name}", "shared_memory")
    yield made
    made.close()
    (SHM / made.name).unlink(missing_ok=True)


def _segment(memory: shared_memory.SharedMemory) -> Segment:
    return Segment(memory.name, (SHM / memory.name).stat().st_ino)


def test_a_mapped_segment_is_held_and_stays(memory: shared_memory.SharedMemory) -> None:
    """What a process maps is found as held by it and is not removed, even if said to be ours."""
    assert _segment(memory) in held_by([os.getpid()])
    assert remove_unheld([_segment(memory)], os.getuid()) == []
    assert _segment(memory) in existing()


def test_a_segment_held_by_nobody_is_removed(memory: shared_memory.SharedMemory) -> None:
    """Once nobody maps it or has it open, our segment goes."""
    segment = _segment(memory)
    memory.close()
    assert segment not in held_by([os.getpid()])
    assert remove_unheld([segment], os.getuid()) == [memory.name]
    assert segment not in existing()


def test_a_later_file_of_the_same_name_stays(memory: shared_memory.SharedMemory) -> None:
    """A segment is the file, not the name: another's of the same name is not removed."""
    segment = _segment(memory)
    memory.close()
    assert remove_unheld([Segment(segment.name, segment.inode + 1)], os.getuid()) == []
    assert segment in existing()


def test_a_file_of_another_user_stays(memory: shared_memory.SharedMemory) -> None:
    """Root could remove it, and does not: it is none that the run made."""
    segment = _segment(memory)
    memory.close()
    assert remove_unheld([segment], os.getuid() + 1) == []
    assert segment in existing()


def test_an_open_but_unmapped_segment_is_held() -> None:
    """A segment that is only held open counts as held."""
    path = SHM / f"psm_{secrets.token_hex(4)}"
    with path.open("wb") as file:
        segment = Segment(path.name, os.fstat(file.fileno()).st_ino)
        assert segment in held_by([os.getpid()])
    path.unlink()
