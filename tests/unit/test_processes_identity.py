"""Identity of a process over time."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import time

from fairshare.processes.identity import boot_id, identify, wait_gone


def test_this_process_is_alive_and_stays_itself() -> None:
    """Identifying a process twice gives the same identity, which is alive."""
    first = identify(os.getpid())
    assert first is not None
    assert first == identify(os.getpid())
    assert first.alive()
    assert first.boot_id == boot_id()


def test_a_reused_pid_is_another_process() -> None:
    """The same pid with another start time or boot is not alive and gets no signal."""
    with subprocess.Popen(["sleep", "60"]) as child:
        real = identify(child.pid)
        assert real is not None
        earlier = dataclasses.replace(real, start_ticks=real.start_ticks - 1)
        before_reboot = dataclasses.replace(real, boot_id="0" * 36)
        for other in (earlier, before_reboot):
            assert not other.alive()
            assert not other.signal(signal.SIGKILL)
        assert real.alive()
        assert real.signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


def test_a_zombie_is_not_alive() -> None:
    """A process that ended without being reaped is neither alive nor identified."""
    child = subprocess.Popen(["sleep", "60"])
    identity = identify(child.pid)
    assert identity is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not identity.alive()
    assert identify(child.pid) is None
    child.wait()


def test_waiting_returns_at_the_last_end_and_names_who_stays() -> None:
    """Waiting ends at once when all have ended; at its limit it returns those still alive."""
    with (
        subprocess.Popen(["cat"], stdin=subprocess.PIPE) as short,
        subprocess.Popen(["sleep", "60"]) as long,
    ):
        ends, stays = identify(short.pid), identify(long.pid)
        assert ends is not None
        assert stays is not None
        assert short.stdin is not None
        short.stdin.close()
        assert wait_gone([ends], timeout_s=30) == []
        assert wait_gone([ends, stays], timeout_s=0.05) == [stays]
        long.kill()
        started_s = time.monotonic()
        assert wait_gone([ends, stays], timeout_s=30) == []
        assert time.monotonic() - started_s < 15
