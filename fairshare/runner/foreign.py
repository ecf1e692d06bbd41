"""Others who compute on the GPU while a cell is measured: its figures are theirs as well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fairshare.devices.nvml import GpuProcess, NvmlUnavailableError
from fairshare.processes.labelled import RUN_LABEL, environment_of
from fairshare.processes.table import command_line, read_row
from fairshare.records import Phase
from fairshare.units import format_bytes

_LONGEST_NAME = 60
_INIT = 1

Lister = Callable[[], Sequence[GpuProcess]]


class ForeignWatch:
    """Looks who computes on a GPU; ``found`` holds, in words, who did so in the measured window.

    ``run_id`` is the run whose processes are expected there. In a container the driver may know
    processes by numbers that mean nothing here: those that are listed before the cell begins are
    taken for the servers', later ones are not.
    """

    def __init__(self, lister: Lister, run_id: str) -> None:
        self.found: dict[int, str] = {}
        self._lister = lister
        self._run_id = run_id
        self._nameless: frozenset[int] | None = None
        self._present: dict[int, str] = {}
        self._measuring = False

    def enter(self, phase: str) -> None:
        """Note the phase of the cell that begins now."""
        self._measuring = phase == Phase.MEASURE
        self._keep()

    def look(self) -> None:
        """Ask once who computes.

        Raises:
            NvmlUnavailableError: the driver does not tell.
        """
        running = self._lister()
        if self._nameless is None:
            self._nameless = frozenset(p.pid for p in running if read_row(p.pid) is None)
        others = [p for p in running if p.pid not in self._nameless and not self._is_ours(p.pid)]
        self._present = {p.pid: _told(p) for p in others}
        self._keep()

    @asynccontextmanager
    async def watching(self, interval_s: float) -> AsyncIterator[str | None]:
        """Look again and again while the block lasts; yields why nobody can be seen, if so."""
        try:
            await asyncio.to_thread(self.look)
        except NvmlUnavailableError as error:
            yield str(error)
            return
        stop = asyncio.Event()

        async def repeat() -> None:
            while not stop.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), interval_s)
                with suppress(NvmlUnavailableError):  # a GPU that is gone fails the cell by itself
                    await asyncio.to_thread(self.look)

        task = asyncio.create_task(repeat(), name="watch for foreign processes")
        try:
            yield None
        finally:
            stop.set()
            await task

    def _keep(self) -> None:
        if self._measuring:
            self.found = {**self._present, **self.found}

    def _is_ours(self, pid: int) -> bool:
        """Whether it, or one it comes from, carries our run's label.

        The MPS server need not have the environment of the daemon that started it.
        """
        while pid > _INIT:
            if environment_of(pid).get(RUN_LABEL) == self._run_id:
                return True
            row = read_row(pid)
            pid = _INIT if row is None else row.ppid
        return False


def _told(process: GpuProcess) -> str:
    words = command_line(process.pid).split()
    name = " ".join([Path(words[0]).name, *words[1:]])[:_LONGEST_NAME] if words else "not visible"
    memory = "" if process.memory_bytes is None else f", {format_bytes(process.memory_bytes)}"
    return f"pid {process.pid} ({name}{memory})"
