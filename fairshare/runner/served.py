"""What servers leave for the cells that they served: their shares, and their logs in parts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairshare.runner.log_parts import begin_anew, copy_part
from fairshare.serving.fleet import Fleet
from fairshare.sharing.plan import Partitioner, PartitionPlan, Slot


async def shares_of(
    plan: PartitionPlan,
    partitioner: Partitioner,
    running: Fleet,
    probes: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """What each server was meant to get, and what is seen from inside."""
    shares = []
    for slot in plan.slots:
        view = running.servers[slot.name].view(probes.get(slot.name))
        shares.append({**_planned(slot), **await partitioner.verify(slot, view)})
    return shares


def _planned(slot: Slot) -> dict[str, Any]:
    """What a slot was meant to get, beside what is then seen from inside."""
    return {
        "slot": slot.name,
        "tenants": list(slot.tenants),
        "planned": {
            "compute_fraction": slot.compute_fraction,
            "memory_fraction": slot.memory_fraction,
            "memory_bytes": slot.memory_bytes,
            "cpu_set": None if slot.cpu_set is None else list(slot.cpu_set),
            "threads": slot.threads,
            "mig_profile": slot.mig_profile,
        },
    }


class ServerLogs:
    """Gives each cell the part of its servers' logs that was written since the cell before."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._seen: dict[Path, int] = {}

    def copy_new(self, target: Path) -> None:
        """What the servers have written since the cell before, and their commands."""
        if not self._log_dir.is_dir():
            return
        target.mkdir(exist_ok=True)
        for path in sorted(self._log_dir.iterdir()):
            if path.suffix != ".log":
                shutil.copy2(path, target / path.name)
                continue
            end = copy_part(path, self._seen.get(path, 0), target / path.name)
            self._seen[path] = begin_anew(path, end)

    def copy_decisions(self, running: Fleet, target: Path) -> None:
        """What the scheduler inside the engine decided since the cell before, with its first line.

        There is one where there is one server for all tenants.
        """
        for server in running.servers.values():
            path = server.engine_decisions
            if path is None or not path.exists():
                continue
            with path.open("rb") as source, target.open("wb") as copy:
                if (begun := self._seen.get(path, 0)) > 0:
                    copy.write(source.readline())
                    source.seek(begun)
                shutil.copyfileobj(source, copy)
                self._seen[path] = source.tell()
