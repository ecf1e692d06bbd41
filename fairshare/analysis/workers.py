"""Work on several cores: cells are analysed, and figures written, side by side."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import (
    connection,
    forkserver,
    get_context,
    parent_process,
    resource_tracker,
    set_forkserver_preload,
)
from typing import TypeVar

from fairshare.errors import FairshareError

_MOST = 8
_HEAVY = ["fairshare.analysis.plots"]  # what it imports takes seconds, once for all processes
_CHUNK = 8  # pieces of work that a process takes at once, where there are many
T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """How many processes are worth having: the cores that this one may use, 8 at most."""
    return min(_MOST, len(os.sched_getaffinity(0)))


def prepare() -> None:
    """Begin to import, in a process beside this one, what those that draw will need."""
    if cores() > 1:
        set_forkserver_preload(_HEAVY)
        _copied()


def _copied() -> bool:
    """Have a process run whose copies are to work; whether it does.

    It is reached by a socket in the folder for temporary files, whose path may be too long.
    """
    resource_tracker.ensure_running()  # else the next does it, and lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()  # Ctrl-C is for this process, also while that one imports
    except OSError:
        return False
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return True


@contextmanager
def workers() -> Iterator[ProcessPoolExecutor]:
    """Processes that start afresh, so that no thread or open file of ours is copied into them.

    After :func:`prepare` they are copies of one that has imported what draws.

    Raises:
        FairshareError: one of them was killed, most likely for want of memory.
    """
    context = get_context("forkserver" if _copied() else "spawn")
    pool = ProcessPoolExecutor(cores(), mp_context=context, initializer=_begin)
    try:
        with pool:
            yield pool
    except BrokenProcessPool as error:
        raise FairshareError(
            "a process of the analysis was killed",
            hint="there may be too little memory; the result folder is as it was",
        ) from error


def side_by_side(work: Callable[[T], R], items: Sequence[T], *, worthwhile: bool = True) -> list[R]:
    """``work`` of each item, in order; on several cores if that is ``worthwhile``.

    An error is that of the first item that fails. ``work`` and the items must be picklable.
    """
    if not worthwhile or cores() < 2 or len(items) < 2:
        return [work(item) for item in items]
    with workers() as pool:
        try:
            each = min(_CHUNK, 1 + len(items) // (4 * cores()))
            return list(pool.map(work, items, chunksize=each))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
