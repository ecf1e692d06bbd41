"""One run's private folder, journal and label; at its end nothing of the run is left."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from fairshare import users
from fairshare.errors import FairshareError, StoppedEarlyError
from fairshare.events import EventLog
from fairshare.processes.finishing import to_the_end
from fairshare.processes.guards import Guard, KillGuards
from fairshare.processes.identity import identify
from fairshare.processes.journal import Journal, journal_path
from fairshare.processes.journal_state import RunHeader
from fairshare.processes.labelled import (
    JOURNAL_LABEL,
    KEEP_ENVIRONMENT,
    LABELS,
    OWNER_LABEL,
    RUN_LABEL,
    owner_label,
)
from fairshare.processes.linux import set_child_subreaper
from fairshare.processes.reaper import FINISHED, JOURNAL, READY
from fairshare.processes.recovery import MARKER, Recovery, put_back, recover
from fairshare.processes.segments import existing
from fairshare.processes.table import namespace_of

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_SHORT_NAME = re.compile(r"[A-Za-z0-9_-]{1,24}")
# A UNIX socket's path has 107 bytes at most; a server adds a UUID and more below its folder.
LONGEST_TMPDIR = 32
_WATCHERS_WAIT_S = 5.0


class RunScope:
    """What belongs to one run: made by `run_scope`, handed to whatever starts something."""

    def __init__(self, header: RunHeader, journal: Journal, events: EventLog) -> None:
        self.run_id = header.run_id
        self.private_dir = header.private_dir
        self.journal = journal
        self.events = events
        self.header = header
        self.guards = KillGuards(events)
        self._slot_dirs: dict[str, Path] = {}
        self._serials = itertools.count(1)
        self._watchers: set[asyncio.Task[None]] = set()

    def slot_dir(self, name: str) -> Path:
        """The private folder (0700) of one slot, always the same; short enough for sockets.

        Raises:
            StoppedEarlyError: it cannot be made.
        """
        if name not in self._slot_dirs:
            path = self._unused(name)
            _make_private(path)
            self._slot_dirs[name] = path
        return self._slot_dirs[name]

    def _unused(self, name: str) -> Path:
        """A path that is nobody else's; a tenant may be called as another's folder is."""
        short = [name] if _SHORT_NAME.fullmatch(name) else []
        numbered = (f"s{number}" for number in itertools.count())
        paths = (self.private_dir / each for each in itertools.chain(short, numbered))
        given = set(self._slot_dirs.values())
        return next(path for path in paths if path not in given and not path.exists())

    def guard(self, callback: Guard) -> AbstractContextManager[None]:
        """While the block lasts, await ``callback(pids)`` before processes of this run are killed.

        It has a few seconds, and what it raises keeps nobody from being killed.
        """
        return self.guards.registered(callback)

    def child_env(self) -> dict[str, str]:
        """The label that every process of this run carries in its environment."""
        return {
            RUN_LABEL: self.run_id,
            OWNER_LABEL: owner_label(self.header.owner),
            JOURNAL_LABEL: str(self.journal.path),
            KEEP_ENVIRONMENT: "1",
        }

    def labelled(self, env: Mapping[str, str]) -> dict[str, str]:
        """The environment of a tool, with the label: it may still be at work when the run dies."""
        return {**env, **self.child_env()}

    def next_serial(self) -> int:
        """A number that no other process of this run got."""
        return next(self._serials)

    def open_changes(self) -> set[int]:
        """Numbers of the changes that the journal would have to undo now."""
        return set(self.journal.state().pending)

    async def put_back(self, numbers: set[int]) -> bool:
        """Undo changes that could not be undone as they should; whether none of them is left."""
        pending = self.journal.state().pending
        steps = [step for number, step in pending.items() if number in numbers]
        result = await to_the_end(asyncio.to_thread(put_back, self.journal, steps))
        _report(self.events, result)
        return result.complete

    def watch(self, watcher: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine beside the run; the end of the run waits for it."""
        task = asyncio.create_task(watcher)
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)
        return task

    async def wait_watchers(self) -> None:
        """Let the watchers see the last exits."""
        if self._watchers:
            await asyncio.wait(set(self._watchers), timeout=_WATCHERS_WAIT_S)
        for task in set(self._watchers):
            task.cancel()


class Watched:
    """A run before its first trace: its reaper waits already for the end of this process."""

    def __init__(self, header: RunHeader, reaper: subprocess.Popen[bytes], pipe: int) -> None:
        self.header = header
        self.cleaned_up = True
        self._reaper = reaper
        self._pipe = pipe

    def begin(self) -> None:
        """Tell the reaper of the journal that there is now; `cleaned_up` once it is done with."""
        self.cleaned_up = False
        self._tell(JOURNAL)

    def dismiss(self) -> None:
        """Tell the reaper that nothing is left to do, unless there is, and see it off."""
        if self.cleaned_up:
            self._tell(FINISHED)
        os.close(self._pipe)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._reaper.wait(timeout=_WATCHERS_WAIT_S)

    def _tell(self, what: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # a run goes on without its reaper
            os.write(self._pipe, what)


@contextlib.contextmanager
def watched(lock: Path | None = None) -> Iterator[Watched]:
    """Have a reaper clean up should this process be killed while the block lasts.

    It removes ``lock`` as well, the file with which this process is going to hold its device.

    Raises:
        FairshareError: the state folder cannot be used, or the reaper does not start.
    """
    header = _header(lock)
    watch = Watched(header, *_start_reaper(header))
    try:
        yield watch
    finally:
        watch.dismiss()


@asynccontextmanager
async def run_scope(events: EventLog, watch: Watched | None = None) -> AsyncIterator[RunScope]:
    """Everything of a run between its first change and its last clean-up.

    On exit, whatever the reason, every process that carries the run's label is ended, changes that
    are still open in the journal are undone, and the private folder, our shared memory and the
    journal are removed. Should this process be killed, its reaper does so within seconds; ``watch``
    is one that waits already.

    Raises:
        FairshareError: the state folder or the folder for temporary files cannot be written.
    """
    with contextlib.ExitStack() as stack:
        watch = watch or stack.enter_context(watched())
        journal = Journal.create(watch.header)
        watch.begin()
        was_subreaper = set_child_subreaper(True)
        scope = RunScope(watch.header, journal, events)
        try:
            _make_private(scope.private_dir, scope.run_id)
            events.emit("run.opened", run_id=scope.run_id, private_dir=str(scope.private_dir))
            yield scope
        finally:
            try:
                await to_the_end(_close(scope, watch))
            finally:
                set_child_subreaper(was_subreaper)


def _make_private(path: Path, run_id: str | None = None) -> None:
    try:
        path.mkdir(mode=0o700)
        if run_id is not None:
            (path / MARKER).write_text(run_id, encoding="ascii")
    except OSError as error:
        raise StoppedEarlyError(
            f"cannot make the private folder {path}: {error.strerror}",
            hint="free some space; TMPDIR names another folder for temporary files",
        ) from error


async def _close(scope: RunScope, watch: Watched) -> None:
    result = await asyncio.to_thread(recover, scope.journal, scope.journal.state())
    watch.cleaned_up = True
    await scope.wait_watchers()
    scope.journal.close()
    _report(scope.events, result)
    scope.events.emit("run.closed", run_id=scope.run_id, complete=result.complete)


def _report(events: EventLog, result: Recovery) -> None:
    for identity, name in result.ended.items():
        events.emit("process.leftover", pid=identity.pid, name=name, ended=True)
    for identity in result.survivors:
        events.emit("process.leftover", pid=identity.pid, ended=False)
    for step in result.released:
        events.emit("run.released", step=step)
    for step in result.undone:
        events.emit("run.undone", step=step)
    for problem in result.failed:
        events.emit("run.not_undone", problem=problem)
    for path in result.removed:
        events.emit("run.removed", path=path)


def _header(lock: Path | None) -> RunHeader:
    owner = identify(os.getpid())
    if owner is None:
        raise FairshareError("/proc does not show this process; is it mounted?")
    base = tempfile.gettempdir()
    if len(base) > LONGEST_TMPDIR:
        base = "/tmp"  # noqa: S108 - a private folder of random name is made below it
    suffix = secrets.token_hex(4)
    return RunHeader(
        run_id=f"{time.strftime('%Y%m%d-%H%M')}-{secrets.token_hex(3)}",
        owner=owner,
        host=os.uname().nodename,
        private_dir=Path(base) / f"fs-{suffix}",
        segments_before=frozenset(existing()),
        lock=lock,
        uid=os.getuid(),
        namespace=namespace_of() or "",
    )


@users.as_root()
def _start_reaper(header: RunHeader) -> tuple[subprocess.Popen[bytes], int]:
    """Start the reaper and wait until it watches; return it and our end of its pipe."""
    journal, lock, owner = journal_path(header.run_id), header.lock or "", header.owner
    read_end, write_end = os.pipe()
    env = {name: value for name, value in os.environ.items() if name not in LABELS}
    env["PYTHONPATH"] = str(_PACKAGE_PARENT)
    identity = [str(owner.pid), str(owner.start_ticks)]
    arguments = [str(journal), str(lock), *identity, str(read_end)]
    try:
        reaper = subprocess.Popen(
            [sys.executable, "-SPm", "fairshare.processes.reaper", *arguments],
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[read_end],
            start_new_session=True,
            **users.root_ids(),
        )
    except BaseException:
        os.close(write_end)
        raise
    finally:
        os.close(read_end)
    with reaper.stdout or contextlib.nullcontext() as output:
        if output is None or output.read(1) != READY:
            os.close(write_end)
            raise FairshareError("the process that cleans up after a killed run did not start")
    return reaper, write_end
