"""One reading of the process table."""

from __future__ import annotations

import os
import subprocess
import sys

from fairshare.processes.table import (
    ProcessRow,
    command_line,
    read_row,
    snapshot,
    with_descendants,
)


def _row(pid: int, ppid: int) -> ProcessRow:
    return ProcessRow(pid=pid, ppid=ppid, session=1, start_ticks=1, state="S", name="x")


def test_own_row_agrees_with_the_system_calls() -> None:
    """The row of this process has the parent and session that the kernel says it has."""
    row = read_row(os.getpid())
    assert row is not None
    assert (row.ppid, row.session) == (os.getppid(), os.getsid(0))
    assert not row.ended
    assert row.start_ticks > 0


def test_a_name_with_blanks_and_parentheses_does_not_shift_the_fields() -> None:
    """A process may name itself anything and its parent is still read from the right field."""
    code = (
        "open('/proc/self/comm', 'w').write('a) R 1 (b c');"
        "print(flush=True); import sys; sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        row = read_row(child.pid)
        assert row is not None
        assert row.name == "a) R 1 (b c"
        assert row.ppid == os.getpid()
        assert snapshot()[child.pid].name == row.name
        child.kill()


def test_an_absent_process_has_no_row() -> None:
    """A pid that nobody has gives None, not an error."""
    child = subprocess.Popen(["true"])
    child.wait()
    assert read_row(child.pid) is None
    assert command_line(child.pid) == ""


def test_an_unreaped_process_counts_as_ended() -> None:
    """A zombie has a row that says it has ended."""
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    row = read_row(child.pid)
    child.wait()
    assert row is not None
    assert row.ended


def test_descendants_are_found_at_any_depth_and_strangers_are_not() -> None:
    """The tree below a root holds children of children, nothing beside it, and no absent root."""
    table = {row.pid: row for row in (_row(1, 0), _row(2, 1), _row(3, 2), _row(4, 1), _row(5, 3))}
    assert with_descendants(table, [2]) == {2, 3, 5}
    assert with_descendants(table, [4, 3]) == {3, 4, 5}
    assert with_descendants(table, [99]) == set()
