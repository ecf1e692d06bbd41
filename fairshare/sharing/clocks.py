"""The GPU's clocks held at one value on request, so that heat does not decide who is faster.

The driver does not tell whether somebody has locked the clocks before: letting go of them resets
them to its own governing (docs/recovery.md).
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from fairshare.errors import PartitionError
from fairshare.processes.finishing import to_the_end
from fairshare.processes.scope import RunScope
from fairshare.sharing.rights import HINT
from fairshare.sharing.tools import Answer, run_tool, simulation_is_gone, tool_env, undo_env

_TIMEOUT_S = 15.0
_LOCKED = "GPU clocks set to"
_REFUSED = ("not supported", "permission", "invalid", "unable")


def lock_argv(gpu: str, clocks: str) -> list[str]:
    """The command that locks the clocks of a GPU: ``1410``, or ``1200,1410``, in MHz."""
    low, _, high = clocks.partition(",")
    return ["nvidia-smi", "-i", gpu, f"--lock-gpu-clocks={low},{high or low}"]


def reset_argv(gpu: str) -> list[str]:
    """The command that lets go of them."""
    return ["nvidia-smi", "-i", gpu, "--reset-gpu-clocks"]


@asynccontextmanager
async def locked_clocks(
    gpu: str, driver_env: Mapping[str, str], clocks: str, scope: RunScope
) -> AsyncIterator[None]:
    """The clocks are locked while the block lasts, and the driver's own afterwards.

    Raises:
        PartitionError: they could not be locked, or not be let go of.
    """
    undo = [sys.executable, "-m", "fairshare.sharing.undo", "clocks", gpu]
    step = scope.journal.intend(
        f"clocks of GPU {gpu} locked to {clocks} MHz", [undo], {**driver_env, **undo_env()}
    )
    env = scope.labelled(driver_env)
    try:
        await _change(lock_argv(gpu, clocks), env, said=_LOCKED)
        scope.events.emit("clocks.locked", gpu=gpu, mhz=clocks)
        yield
    finally:
        await to_the_end(_change(reset_argv(gpu), env))
        scope.journal.done(step)
        scope.events.emit("clocks.reset", gpu=gpu)


async def undo_clocks(arguments: Sequence[str]) -> None:
    """Let go of the clocks that a dead run has locked.

    Raises:
        PartitionError: that does not succeed.
    """
    (gpu,) = arguments
    if not simulation_is_gone():
        await _change(reset_argv(gpu), {})


async def _change(argv: Sequence[str], env: Mapping[str, str], said: str = "") -> None:
    """Run it; the driver ends well also where it only warns that it did nothing.

    Raises:
        PartitionError: it did nothing.
    """
    answer = await run_tool(argv, tool_env(env), timeout_s=_TIMEOUT_S, privileged=True)
    words = answer.output.lower()
    refused = answer.returncode != 0 or any(word in words for word in _REFUSED)
    if refused or said.lower() not in words:
        raise PartitionError(
            f"the GPU's clocks could not be changed: {' '.join(argv)}",
            evidence=answer.lines[-5:],
            hint=_hint(answer),
        )


def _hint(answer: Answer) -> str | None:
    if "permission" in answer.output.lower():
        return HINT
    return "see what it offers with: nvidia-smi -q -d SUPPORTED_CLOCKS"
