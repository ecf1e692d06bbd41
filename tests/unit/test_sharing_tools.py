"""Driver tools are run to their end, whoever else is told to stop."""

from __future__ import annotations

import os

from fairshare.sharing.tools import run_tool


async def test_a_ctrl_c_at_the_terminal_does_not_stop_a_tool() -> None:
    """The terminal tells every process of the group; a change must not be cut short by that."""
    shell = "kill -INT $$; kill -HUP $$; echo still here"
    answer = await run_tool(["sh", "-c", shell], os.environ, timeout_s=20)
    assert answer.output == "still here\n"
