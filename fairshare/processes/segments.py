"""Shared-memory segments in ``/dev/shm`` that our processes made and nobody holds any more."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fairshare.processes.table import all_pids

SHM = Path("/dev/shm")  # noqa: S108 - the kernel's fixed place of POSIX shared memory


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One file of ``/dev/shm``; the inode tells it from a later one of the same name."""

    name: str
    inode: int

    def remove(self, uid: int) -> bool:
        """Delete it if it is still the same file and belongs to the user ``uid``."""
        path = SHM / self.name
        try:
            status = path.lstat()
            if (status.st_ino, status.st_uid) != (self.inode, uid):
                return False
            path.unlink()
        except OSError:
            return False
        return True


def existing() -> set[Segment]:
    """Every segment there is now, whoever made it."""
    if not SHM.is_dir():
        return set()
    with os.scandir(SHM) as entries:
        return {Segment(entry.name, entry.inode()) for entry in entries}


def held_by(pids: Iterable[int]) -> set[Segment]:
    """Segments that these processes map or hold open now.

    They are told by inode: a named semaphore is made under another name and then linked to its
    own, so its maker's memory map shows a deleted file.
    """
    by_inode = {segment.inode: segment for segment in existing()}
    if not by_inode:
        return set()
    held: set[int] = set()
    for pid in pids:
        held |= _mapped_inodes(pid) | _open_inodes(pid)
    return {by_inode[inode] for inode in held & by_inode.keys()}


def remove_unheld(ours: Iterable[Segment], uid: int) -> list[str]:
    """Delete those of our segments, made by ``uid``, that nobody holds any more; their names."""
    candidates = sorted(set(ours) & existing())
    if not candidates:
        return []
    held = held_by(all_pids())
    return [each.name for each in candidates if each not in held and each.remove(uid)]


def _mapped_inodes(pid: int) -> set[int]:
    try:
        text = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    # address permissions offset device inode path
    return {int(line.split()[4]) for line in text.splitlines() if f" {SHM}/" in line}


def _open_inodes(pid: int) -> set[int]:
    inodes: set[int] = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if descriptor.readlink().parent == SHM:
                    inodes.add(descriptor.stat().st_ino)
    except OSError:
        pass
    return inodes
