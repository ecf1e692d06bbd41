"""Start one process of a run, and end it with everything that came from it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairshare.errors import ServerError
from fairshare.processes.cpus import check_cpu_set, check_granted
from fairshare.processes.ending import end_all, reap
from fairshare.processes.identity import ProcessIdentity, identify, identity_of, wait_gone
from fairshare.processes.labelled import SLOT_LABEL, labelled
from fairshare.processes.linux import signal_on_parent_death
from fairshare.processes.scope import RunScope
from fairshare.processes.segments import Segment, existing, held_by, remove_unheld
from fairshare.processes.table import snapshot, with_descendants

_GROUP_GRACE_S = 2.0
_SETTLE_S = 0.5
_TAIL_BYTES = 128 * 1024
_ORPHANED_AT_BIRTH = 70


class ManagedProcess:
    """A process in a session of its own, with its log in a file and its run's label on it."""

    def __init__(
        self,
        name: str,
        process: asyncio.subprocess.Process,
        *,
        slot: str,
        log_path: Path,
        scope: RunScope,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._process = process
        self._identity = identify(process.pid)
        self._slot = slot
        self._scope = scope
        self._seen: dict[ProcessIdentity, str] = {}
        self._segments: set[Segment] = set()
        self._stopping = asyncio.Lock()
        self._gone = False
        self._spawned_s = time.monotonic()
        self._watcher = scope.watch(self._watch())

    @classmethod
    async def spawn(
        cls,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log_path: Path,
        scope: RunScope,
        cpu_set: Sequence[int] | None = None,
        cwd: Path | None = None,
        dies_with_us: bool = True,
    ) -> ManagedProcess:
        """Start ``argv`` with exactly ``env`` and the run's label; both outputs go to the log.

        The process gets SIGTERM should this one die (unless it is still needed then, for cleaning
        up), and is bound to ``cpu_set`` from its start.

        Raises:
            PreflightError: a core of ``cpu_set`` does not exist or is withheld from us.
            ServerError: the program cannot be executed.
        """
        if cpu_set is not None:
            check_cpu_set(name, cpu_set)
        slot = f"{name}/{scope.next_serial()}"
        labelled_env = {**env, **scope.child_env(), SLOT_LABEL: slot}
        log = _open_log(log_path)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=labelled_env,
                cwd=cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_in_child(cpu_set, dies_with_us),
            )
        except OSError as error:
            raise ServerError(f"{name} cannot start {argv[0]}: {error}") from error
        finally:
            os.close(log)
        managed = cls(name, process, slot=slot, log_path=log_path, scope=scope)
        await managed._settle_in(cpu_set)
        return managed

    @property
    def pid(self) -> int:
        """The pid of the leader, which is the number of its session and group as well."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The leader's exit code (negative: the signal that ended it), None while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for the leader's end; return its exit code."""
        return await self._process.wait()

    def tree(self) -> list[int]:
        """The pids of everything that came from this process and still runs."""
        return sorted(identity.pid for identity in self._members())

    def log_tail(self, lines: int = 40) -> list[str]:
        """The last lines of the log, without their ends; empty if there is none."""
        try:
            with self.log_path.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(0, size - _TAIL_BYTES))
                text = log.read().decode(errors="replace")
        except OSError:
            return []
        return text.splitlines()[-lines:]

    def note_segments(self) -> None:
        """Remember the shared memory held now, so that it can be removed whoever dies how.

        `stop` does so by itself; a server that uses much is noted once it is ready as well.
        """
        before = self._scope.header.segments_before
        new = held_by(self.tree()) - before - self._segments
        self._segments |= new
        self._scope.journal.add_segments(new)

    def segments_left(self) -> list[str]:
        """Names of the shared memory that it has made and that is still there."""
        return sorted(segment.name for segment in self._segments & existing())

    async def stop(self, grace_s: float) -> None:
        """End the process and all that came from it; return when nothing of it is left.

        The leader is asked (SIGTERM) and has ``grace_s`` to go; then the rest is asked and killed.
        Each step is an event with the time since this was called. Does nothing the second time.
        """
        async with self._stopping:
            if self._gone:
                return
            started_s = time.monotonic()
            self.note_segments()
            if self.returncode is None:
                await self._ask_leader(grace_s, started_s)
            survivors = await self._end_rest(min(grace_s, _GROUP_GRACE_S), started_s)
            reap(identity.pid for identity in self._seen if identity.pid != self.pid)
            removed = await asyncio.to_thread(remove_unheld, self._segments, self._scope.header.uid)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._watcher), _GROUP_GRACE_S)
            self._gone = not survivors
            self._tell_end(started_s, survivors, removed)

    async def _ask_leader(self, grace_s: float, started_s: float) -> None:
        if self._identity is not None and self._identity.signal(signal.SIGTERM):
            after_s = round(time.monotonic() - started_s, 3)
            self._emit("process.sigterm", target="leader", pids=[self.pid], duration_s=after_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), grace_s)

    async def _end_rest(self, grace_s: float, started_s: float) -> list[ProcessIdentity]:
        loop = asyncio.get_running_loop()

        def notice(event: str, identities: list[ProcessIdentity]) -> None:
            pids = [identity.pid for identity in identities]
            after_s = round(time.monotonic() - started_s, 3)
            emit = self._scope.events.emit
            loop.call_soon_threadsafe(
                lambda: emit(f"process.{event}", name=self.name, pids=pids, duration_s=after_s)
            )

        def end() -> list[ProcessIdentity]:
            if self.returncode is not None:
                # Children that end together with their leader need no signal for it.
                wait_gone(self._members(), min(grace_s, _SETTLE_S))
            return end_all(self._members, grace_s, notice, before_kill)

        def before_kill(identities: list[ProcessIdentity]) -> None:
            pids = [identity.pid for identity in identities]
            asyncio.run_coroutine_threadsafe(self._scope.guards.ask(pids), loop).result()

        return await asyncio.to_thread(end)

    def _members(self, *, just_exited: bool = False) -> list[ProcessIdentity]:
        """Everything of this process that runs: by label, session and descent.

        The session's number is certainly ours while the leader lives or has only just exited.
        """
        table = snapshot()
        roots = {identity.pid for identity in labelled(self._scope.run_id, self._slot)}
        roots |= {identity.pid for identity in list(self._seen) if identity.alive()}
        leader = table.get(self.pid)
        leads = leader is not None and identity_of(leader) == self._identity
        if leads or (just_exited and leader is None):
            roots |= {row.pid for row in table.values() if row.session == self.pid}
        ours = with_descendants(table, roots) - {os.getpid()}
        found = {identity_of(table[pid]): table[pid].name for pid in ours}
        self._seen.update(found)
        return [identity for identity in found if not table[identity.pid].ended]

    async def _settle_in(self, cpu_set: Sequence[int] | None) -> None:
        if self._identity is not None:
            self._scope.journal.add_process(self._identity)
        self._emit("process.spawned", pid=self.pid, cpu_set=cpu_set)
        if cpu_set is not None:
            try:
                check_granted(self.name, self.pid, cpu_set)
            except BaseException:
                await self.stop(grace_s=0)
                raise

    async def _watch(self) -> None:
        code = await self.wait()
        self._members(just_exited=True)
        lived_s = round(time.monotonic() - self._spawned_s, 3)
        self._emit("process.exited", pid=self.pid, returncode=code, duration_s=lived_s)

    def _tell_end(
        self, started_s: float, survivors: list[ProcessIdentity], removed: list[str]
    ) -> None:
        if removed:
            self._emit("process.segments_removed", segments=removed)
        duration_s = round(time.monotonic() - started_s, 3)
        for survivor in survivors:
            self._emit("process.leftover", pid=survivor.pid, ended=False, duration_s=duration_s)
        if not survivors:
            self._emit("process.gone", pid=self.pid, duration_s=duration_s)

    def _emit(self, event: str, **fields: Any) -> None:
        self._scope.events.emit(event, name=self.name, **fields)


def _open_log(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _in_child(cpu_set: Sequence[int] | None, dies_with_us: bool) -> Callable[[], None]:
    """What the child does between fork and exec."""
    parent = os.getpid()
    # The kernel ties this signal to the forking thread; one that ends would take the child along.
    from_main_thread = threading.current_thread() is threading.main_thread()

    def prepare() -> None:
        if dies_with_us and from_main_thread:
            signal_on_parent_death(signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(_ORPHANED_AT_BIRTH)
        if cpu_set is not None:
            os.sched_setaffinity(0, cpu_set)

    return prepare
