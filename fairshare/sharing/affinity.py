"""Whether a running server really is on the CPUs that its slot gives it: read from ``/proc``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fairshare.errors import PartitionError
from fairshare.processes.cpus import parse_cpu_list
from fairshare.sharing.plan import Slot

PROC = Path("/proc")


def verify_affinity(
    slot: Slot, pids: Sequence[int], proc: Path = PROC, *, caps_decide: bool = True
) -> dict[str, Any]:
    """Check every thread of ``pids`` against the slot's CPUs, and their OpenMP thread caps.

    ``caps_decide``: nobody else tells how many threads compute; an engine that does may start
    helpers with caps of their own.

    Raises:
        PartitionError: a thread may run elsewhere, a CPU of the slot is used by none, a cap
            differs, or there is nothing to look at.
    """
    masks = [mask for pid in pids for mask in _thread_masks(pid, proc)]
    if not masks:
        raise PartitionError(f"no running process of the server {slot.name} to verify")
    planned = set(slot.cpu_set or ())
    allowed = set().union(*masks)
    if allowed != planned:
        what = "may run outside of" if allowed - planned else "does not use all of"
        raise PartitionError(
            f"the server {slot.name} {what} its CPUs: planned {sorted(planned)}, "
            f"seen {sorted(allowed)}",
            hint="the engine binds its threads itself; turn that off in the launcher",
        )
    caps = sorted({cap for pid in pids if (cap := _omp_threads(pid, proc)) is not None})
    if caps_decide and slot.threads is not None and any(cap != str(slot.threads) for cap in caps):
        raise PartitionError(
            f"the server {slot.name} was started with OMP_NUM_THREADS={'/'.join(caps)}, "
            f"its share is {slot.threads}",
            hint="remove OMP_NUM_THREADS from the launcher's env, or write {threads} there",
        )
    return {
        "verified": True,
        "cpus": sorted(allowed),
        "threads_seen": len(masks),
        "omp_num_threads": [int(cap) for cap in caps if cap.isdigit()],
    }


def _thread_masks(pid: int, proc: Path) -> Iterator[set[int]]:
    for status in (proc / str(pid) / "task").glob("*/status"):
        try:
            text = status.read_text("utf-8", "replace")
        except OSError:
            continue  # the thread has ended since
        for line in text.splitlines():
            if line.startswith("Cpus_allowed_list:"):
                yield parse_cpu_list(line.partition(":")[2])


def _omp_threads(pid: int, proc: Path) -> str | None:
    try:
        environment = (proc / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    for entry in environment.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == b"OMP_NUM_THREADS":
            return value.decode("utf-8", "replace")
    return None
