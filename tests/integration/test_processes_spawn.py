"""Real children, well and badly behaved, are started as asked and ended completely."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from processes_children import (
    DAEMON,
    PLAIN,
    SEMAPHORE,
    SHARED_MEMORY,
    STUBBORN,
    UNLABELLED_CHILD,
    Ready,
    assert_gone,
    python,
)

from fairshare.errors import PreflightError, ServerError
from fairshare.events import EventLog
from fairshare.processes.cpus import online_cpus
from fairshare.processes.identity import identify
from fairshare.processes.scope import RunScope, run_scope
from fairshare.processes.segments import SHM
from fairshare.processes.spawn import ManagedProcess
from fairshare.processes.table import read_row


@pytest.fixture
def told() -> list[dict[str, Any]]:
    """The events of the run."""
    return []


@pytest.fixture
async def scope(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[dict[str, Any]]
) -> AsyncIterator[RunScope]:
    """A run with its state in the test's own folder."""
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(tmp_path / "state"))
    events = EventLog()
    events.listen(lambda event: told.append(dict(event)))
    async with run_scope(events) as made:
        yield made


async def _spawn(
    scope: RunScope, ready: Ready, argv: list[str], name: str = "a", **more: Any
) -> ManagedProcess:
    log_path = ready.path.parent / f"{name}.log"
    return await ManagedProcess.spawn(
        name, argv, env=ready.env(), log_path=log_path, scope=scope, **more
    )


def _names(told: list[dict[str, Any]]) -> list[str]:
    return [str(event["event"]) for event in told if str(event["event"]).startswith("process.")]


async def test_a_polite_process_is_asked_once_and_goes(
    scope: RunScope, ready: Ready, told: list[dict[str, Any]]
) -> None:
    """SIGTERM to the leader suffices for a well-behaved process; nothing is killed."""
    process = await _spawn(scope, ready, python(PLAIN))
    child = await ready.child()
    assert child.pid == process.pid
    assert process.tree() == [process.pid]
    assert process.returncode is None
    await process.stop(grace_s=20)
    assert process.returncode == -signal.SIGTERM
    assert process.tree() == []
    expected = ["process.spawned", "process.sigterm", "process.exited", "process.gone"]
    assert _names(told) == expected
    assert told[-1]["duration_s"] >= 0


async def test_stopping_twice_does_nothing_more(
    scope: RunScope, ready: Ready, told: list[dict[str, Any]]
) -> None:
    """A second stop, even at the same time, sends no signal and tells nothing."""
    process = await _spawn(scope, ready, python(PLAIN))
    await ready.child()
    await asyncio.gather(process.stop(grace_s=20), process.stop(grace_s=20))
    await process.stop(grace_s=20)
    assert _names(told).count("process.sigterm") == 1
    assert _names(told).count("process.gone") == 1


async def test_a_stubborn_process_is_killed_after_its_grace(
    scope: RunScope, ready: Ready, told: list[dict[str, Any]]
) -> None:
    """A process that ignores SIGTERM is asked again as a group, then killed, each aloud."""
    process = await _spawn(scope, ready, python(STUBBORN))
    await ready.child()
    await process.stop(grace_s=0.2)
    assert process.returncode == -signal.SIGKILL
    steps = [name for name in _names(told) if name.startswith("process.sig")]
    assert steps == ["process.sigterm", "process.sigterm", "process.sigkill"]
    ends = [event for event in told if event["event"] in (*steps, "process.gone")]
    durations = [event["duration_s"] for event in ends]
    assert durations == sorted(durations)
    assert durations[1] >= 0.2


async def test_guards_are_asked_before_a_kill_and_only_then(
    scope: RunScope, ready: Ready, told: list[dict[str, Any]]
) -> None:
    """A guard hears of each process while it lives, right before SIGKILL; its failure is told."""
    asked: list[tuple[int, bool]] = []

    async def guard(pids: Sequence[int]) -> None:
        asked.extend((pid, identify(pid) is not None) for pid in pids)
        raise PreflightError("the daemon does not answer")

    with scope.guard(guard):
        polite = await _spawn(scope, ready, python(PLAIN))
        await ready.child()
        await polite.stop(grace_s=20)
        assert asked == []
        stubborn = await _spawn(scope, ready, python(DAEMON))
        daemon = await ready.child()
        await stubborn.stop(grace_s=0.2)
        assert asked == [(daemon.pid, True)]
    second = await _spawn(scope, ready, python(STUBBORN))
    await ready.child()
    await second.stop(grace_s=0)
    assert len(asked) == 1
    steps = [name for name in _names(told) if name in ("process.guarded", "process.sigkill")]
    assert steps == ["process.guarded", "process.sigkill", "process.sigkill"]
    (guarded,) = [event for event in told if event["event"] == "process.guarded"]
    assert guarded["problems"] == ["the daemon does not answer"]


async def test_a_guard_that_hangs_does_not_save_a_process(
    scope: RunScope, ready: Ready, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its moment the process is killed, whatever the guard still does."""
    monkeypatch.setattr("fairshare.processes.guards.GUARDS_S", 0.1)

    async def guard(_pids: Sequence[int]) -> None:
        await asyncio.Event().wait()

    with scope.guard(guard):
        process = await _spawn(scope, ready, python(STUBBORN))
        await ready.child()
        await process.stop(grace_s=0)
    assert process.returncode == -signal.SIGKILL
    (guarded,) = [event for event in told if event["event"] == "process.guarded"]
    assert guarded["problems"] == ["not done within 0.1 s"]


async def test_a_daemon_that_left_session_and_parent_is_ended(
    scope: RunScope, ready: Ready
) -> None:
    """A double-forked child in a session of its own goes with the process it came from."""
    process = await _spawn(scope, ready, python(DAEMON))
    daemon = await ready.child()
    assert daemon.pid in process.tree()
    assert os.getsid(daemon.pid) != process.pid
    await process.stop(grace_s=0.2)
    assert not daemon.alive()


async def test_what_an_exited_leader_left_behind_is_ended(scope: RunScope, ready: Ready) -> None:
    """Exit code 0 ends nothing: the leader's daemon falls to us, and stop ends and reaps it."""
    process = await _spawn(scope, ready, python(DAEMON, "exit"))
    daemon = await ready.child()
    assert await process.wait() == 0
    assert process.tree() == [daemon.pid]
    adopted = read_row(daemon.pid)
    assert adopted is not None
    assert adopted.ppid == os.getpid()
    await process.stop(grace_s=0.2)
    assert read_row(daemon.pid) is None
    assert process.returncode == 0


async def test_a_child_without_the_label_is_ended_with_its_session(
    scope: RunScope, ready: Ready
) -> None:
    """A child that was given another environment is still ours by its session."""
    process = await _spawn(scope, ready, python(UNLABELLED_CHILD, STUBBORN, "exit"))
    orphan = await ready.child()
    assert await process.wait() == 0
    assert process.tree() == [orphan.pid]
    await process.stop(grace_s=0.2)
    assert not orphan.alive()


async def test_stopping_one_process_leaves_the_other_of_the_run(
    scope: RunScope, ready: Ready
) -> None:
    """Two processes of one run, even of one name, are ended each on its own."""
    first = await _spawn(scope, ready, python(DAEMON))
    first_daemon = await ready.child()
    second = await _spawn(scope, ready, python(DAEMON))
    second_daemon = await ready.child()
    await first.stop(grace_s=0.2)
    assert not first_daemon.alive()
    assert second_daemon.alive()
    assert second.returncode is None
    assert second_daemon.pid in second.tree()


async def test_a_foreign_process_is_left_alone(scope: RunScope, ready: Ready) -> None:
    """A process without our label that we did not start survives every stop."""
    foreign = await asyncio.create_subprocess_exec("sleep", "100", start_new_session=True)
    process = await _spawn(scope, ready, python(STUBBORN))
    await ready.child()
    await process.stop(grace_s=0)
    assert foreign.returncode is None
    foreign.kill()
    await foreign.wait()


async def test_a_killed_process_leaves_no_shared_memory(
    scope: RunScope, ready: Ready, told: list[dict[str, Any]]
) -> None:
    """When a process must be killed, its resource tracker is spared and removes its segment."""
    process = await _spawn(scope, ready, python(SHARED_MEMORY))
    _, name, tracker = await asyncio.to_thread(ready.line)
    assert (SHM / name).exists()
    assert int(tracker) in process.tree()
    await process.stop(grace_s=0)
    assert not (SHM / name).exists()
    assert process.tree() == []
    assert [e["pids"] for e in told if e["event"] == "process.sigkill"] == [[process.pid]]


async def test_shared_memory_that_was_there_before_the_run_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ready: Ready
) -> None:
    """A segment that our process only used, and somebody else made before the run, is kept."""
    monkeypatch.setenv("FAIRSHARE_STATE_DIR", str(tmp_path / "state"))
    theirs = SHM / f"psm_theirs_{os.getpid()}"
    theirs.write_bytes(b"x" * 4096)
    code = (
        f"{PLAIN.partition('tell(); forever()')[0]}held = open({str(theirs)!r}); tell(); forever()"
    )
    try:
        async with run_scope(EventLog()) as scope:
            first = await _spawn(scope, ready, python(code))
            await ready.child()
            await first.stop(grace_s=20)
            await _spawn(scope, ready, python(code))
            await ready.child()
        assert theirs.exists()
    finally:
        theirs.unlink()


@pytest.mark.parametrize("code", [SHARED_MEMORY, SEMAPHORE], ids=["memory", "semaphore"])
async def test_shared_memory_whose_tracker_died_is_removed(
    code: str, scope: RunScope, ready: Ready, told: list[dict[str, Any]]
) -> None:
    """With the tracker gone the segment would stay for ever; stop removes it and says so."""
    process = await _spawn(scope, ready, python(code))
    _, name, tracker = await asyncio.to_thread(ready.line)
    identity = identify(int(tracker))
    assert identity is not None
    identity.signal(signal.SIGKILL)
    assert_gone(identity)
    await process.stop(grace_s=0)
    assert not (SHM / name).exists()
    assert [e["segments"] for e in told if e["event"] == "process.segments_removed"] == [[name]]


async def test_noted_shared_memory_is_removed_after_a_crash(scope: RunScope, ready: Ready) -> None:
    """A segment noted while its holders lived is removed although all of them were killed."""
    process = await _spawn(scope, ready, python(SHARED_MEMORY))
    _, name, _ = await asyncio.to_thread(ready.line)
    process.note_segments()
    os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    await process.stop(grace_s=0)
    assert not (SHM / name).exists()


async def test_exit_code_and_log_are_kept(
    scope: RunScope, ready: Ready, told: list[dict[str, Any]]
) -> None:
    """Both outputs are in a 0600 log whose end is given; the exit is an event with its code."""
    code = "import sys; [print(n) for n in range(100)]; print('oh', file=sys.stderr); sys.exit(7)"
    process = await _spawn(scope, ready, [sys.executable, "-uc", code])
    assert await process.wait() == 7
    assert process.log_tail(2) == ["99", "oh"]
    assert len(process.log_tail()) == 40
    assert process.log_path.stat().st_mode & 0o777 == 0o600
    await process.stop(grace_s=1)
    assert [e["returncode"] for e in told if e["event"] == "process.exited"] == [7]


async def test_input_is_empty_and_the_environment_is_what_was_given(
    scope: RunScope, ready: Ready
) -> None:
    """A child reads nothing, sees the given environment and the label, and nothing else of ours."""
    code = "import os, sys; print(repr(sys.stdin.read())); print(sorted(os.environ))"
    process = await ManagedProcess.spawn(
        "a",
        [sys.executable, "-c", code],
        env={"ONLY": "this", "LC_ALL": "C.UTF-8"},
        log_path=ready.path.parent / "a.log",
        scope=scope,
    )
    await process.wait()
    labels = [f"FAIRSHARE_{name}" for name in ("JOURNAL", "OWNER", "RUN", "SLOT")] + ["SPT_NOENV"]
    assert process.log_tail() == ["''", str(sorted(["LC_ALL", "ONLY", *labels]))]


async def test_a_process_starts_on_its_cores(scope: RunScope, ready: Ready) -> None:
    """The CPU set holds from the first instruction of the program."""
    core = max(os.sched_getaffinity(0))
    code = "import os; print(sorted(os.sched_getaffinity(0)))"
    process = await _spawn(scope, ready, [sys.executable, "-c", code], cpu_set=[core])
    await process.wait()
    assert process.log_tail() == [f"[{core}]"]


async def test_an_absent_core_is_refused_before_anything_starts(
    scope: RunScope, ready: Ready, told: list[dict[str, Any]]
) -> None:
    """A core that does not exist is an error, and no process was started for it."""
    with pytest.raises(PreflightError, match="does not exist"):
        await _spawn(scope, ready, ["true"], cpu_set=[max(online_cpus()) + 1])
    assert _names(told) == []


async def test_a_program_that_cannot_be_executed_is_an_error_for_people(
    scope: RunScope, ready: Ready
) -> None:
    """A missing program names itself and the slot it was for."""
    with pytest.raises(ServerError, match=r"b cannot start /no/such/program"):
        await _spawn(scope, ready, ["/no/such/program"], name="b")
