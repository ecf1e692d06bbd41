"""Runs a module, mostly fairshare, until it reaches a point, and kills itself there with SIGKILL.

``python -m tests.chaos.doomed KIND WHEN NUMBER REAPER POINTS MODULE ARGUMENTS...``

``KIND`` is ``line`` (the lines of the journal) or ``tool`` (the driver tools it starts), ``WHEN``
``before`` or ``after`` the ``NUMBER``-th of these, ``REAPER`` ``with`` or ``without``. The points
passed are written to the file ``POINTS``, one a line, each before it is reached.
"""

from __future__ import annotations

import asyncio
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from fairshare.processes.journal import Journal
from fairshare.sharing import tools
from tests.chaos.stage import kill_reaper

KIND, WHEN, NUMBER, REAPER, POINTS = sys.argv[1:6]
passed = {"line": 0, "tool": 0}


def begin(kind: str, what: str) -> int:
    """Note a point and return its number; die before it if that is the one."""
    passed[kind] += 1
    number = passed[kind]
    with Path(POINTS).open("a", encoding="utf-8") as file:
        file.write(f"{kind} {what}\n")
    die_if(kind, "before", number)
    return number


def die_if(kind: str, when: str, number: int) -> None:
    """Die here if this is the point."""
    if (kind, when, str(number)) == (KIND, WHEN, NUMBER):
        if REAPER == "with":
            kill_reaper(os.getpid())
        os.kill(os.getpid(), signal.SIGKILL)


write, start_tool = Journal._write, asyncio.create_subprocess_exec


def write_or_die(self: Journal, **line: Any) -> None:
    """Instead of the journal's way of writing a line."""
    what = f"{line['kind']} {line.get('step', line.get('n', ''))}".strip()
    number = begin("line", what)
    write(self, **line)
    die_if("line", "after", number)


class Tools:
    """Instead of asyncio where driver tools are run."""

    def __getattr__(self, name: str) -> Any:
        """All but one thing is asyncio's."""
        return getattr(asyncio, name)

    async def create_subprocess_exec(self, *argv: str, **options: Any) -> Any:
        """Start a tool, or die before or after."""
        number = begin("tool", " ".join(argv))  # several may start at once
        process = await start_tool(*argv, **options)
        die_if("tool", "after", number)
        return process


if __name__ == "__main__":
    Journal._write = write_or_die  # type: ignore[method-assign]
    tools.asyncio = Tools()  # type: ignore[attr-defined]
    module = sys.argv[6]
    sys.argv = [module, *sys.argv[7:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
