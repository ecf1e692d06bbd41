"""Shared-memory segments in ``/dev/shm`` that our processes made and nobody holds any more."""

from __future__ import annotations

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

    def remove(self) -> bool:
        """Delete it if it is still the same file and belongs to this user."""
        path = SHM / self.name
        try:
            status = path.lstat()
            if status.st_ino != self.inode or status.st_uid != os.geteuid():
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
    """Segments that these processes map or hold open now."""
    found: set[Segment] = set()
    for pid in pids:
        for name in _mapped_names(pid) | _open_names(pid):
            try:
                found.add(Segment(name, (SHM / name).lstat().st_ino))
            except OSError:
                continue
    return found


def remove_unheld(ours: Iterable[Segment]) -> list[str]:
    """Delete those of our segments that no process holds any more; return their names."""
    candidates = sorted(set(ours) & existing())
    if not candidates:
        return []
    held = held_by(all_pids())
    return [segment.name for segment in candidates if segment not in held and segment.remove()]


def _mapped_names(pid: int) -> set[str]:
    try:
        text = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    marker = f" {SHM}/"
    names = (line.partition(marker)[2] for line in text.splitlines() if marker in line)
    return {name for name in names if not name.endswith(" (deleted)")}


def _open_names(pid: int) -> set[str]:
    folder = Path(f"/proc/{pid}/fd")
    names = set()
    try:
        descriptors = list(folder.iterdir())
    except OSError:
        return set()
    for descriptor in descriptors:
        try:
            target = descriptor.readlink()
        except OSError:
            continue
        if target.parent == SHM:
            names.add(target.name)
    return names
