"""Runs of other processes while they run: read from the event log that each holds open."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fairshare.events import read_events
from fairshare.results.layout import EVENTS
from fairshare.ui.course import Course

PROC = Path("/proc")


def course_of(pid: int, proc: Path = PROC) -> tuple[Path, Course] | None:
    """The result folder into which a process measures, and how far it has come.

    None where it measures nothing, or is not ours to look into. The kernel says which file it has
    open, so nothing has to be written down that a killed run could leave behind.
    """
    descriptors = proc / str(pid) / "fd"
    try:
        for link in sorted(descriptors.iterdir()):
            path = link.readlink()
            if path.name == EVENTS and (course := _read(link)) is not None:
                return path.parent, course
    except OSError:  # it has just ended, or belongs to somebody else
        return None
    return None


def _read(link: Path) -> Course | None:
    """The course that an open event log tells; None if it is none of a sweep."""
    owner = link.lstat().st_uid
    descriptor = os.open(link, os.O_RDONLY | os.O_NONBLOCK)  # a planted FIFO would make us wait
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != owner:
            return None
        course = Course()
        for event in read_events(file):
            course.take(event)
    return course if course.cells else None
