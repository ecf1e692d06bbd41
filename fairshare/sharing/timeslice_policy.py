"""The driver's time-slice policy: read, set on request, and put back as it was found.

Only ``nvidia-smi compute-policy`` knows it. Whether it outlives a reload of the driver is not
documented, so what undoes it looks at what is in force and not at how long ago that was set.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from fairshare.errors import PartitionError
from fairshare.processes.finishing import to_the_end
from fairshare.processes.scope import RunScope
from fairshare.sharing.rights import HINT
from fairshare.sharing.tools import Answer, run_tool, simulation_is_gone, tool_env, undo_env
from fairshare.spec.choices import TimeslicePolicy

_TOOL = ("nvidia-smi", "compute-policy")
_TIMEOUT_S = 15.0
_ROW = re.compile(r"^\|\s*\d+\s+timeslice\s+(\w+)\s*\|", re.MULTILINE | re.IGNORECASE)
POLICY_NUMBERS = {policy: str(number) for number, policy in enumerate(TimeslicePolicy)}


async def read_policy(gpu: str, driver_env: Mapping[str, str]) -> TimeslicePolicy:
    """The policy that is in force on a GPU, given by UUID or index.

    Raises:
        PartitionError: the driver does not tell.
    """
    argv = [*_TOOL, "--list", "-i", gpu]
    answer = await run_tool(argv, tool_env(driver_env), timeout_s=_TIMEOUT_S)
    found = _ROW.search(answer.output)
    try:
        return TimeslicePolicy(found[1].lower() if found else "")
    except ValueError:
        raise PartitionError(
            f"the driver does not tell the time-slice policy of GPU {gpu}", evidence=answer.lines
        ) from None


async def set_policy(gpu: str, driver_env: Mapping[str, str], policy: TimeslicePolicy) -> None:
    """Set the policy, and see that it is in force.

    Raises:
        PartitionError: it is not.
    """
    argv = [*_TOOL, "--set-timeslice", POLICY_NUMBERS[policy], "-i", gpu]
    answer = await run_tool(argv, tool_env(driver_env), timeout_s=_TIMEOUT_S, privileged=True)
    found = await read_policy(gpu, driver_env)
    if found is not policy:
        raise PartitionError(
            f"the time-slice policy of GPU {gpu} was set to {policy.value}, and is {found.value}",
            evidence=answer.lines,
            hint=_hint(answer),
        )


@asynccontextmanager
async def timeslice_policy(
    gpu: str, driver_env: Mapping[str, str], policy: TimeslicePolicy, scope: RunScope
) -> AsyncIterator[None]:
    """The policy is in force while the block lasts; afterwards the one that was found is.

    Raises:
        PartitionError: it could not be set or put back.
    """
    found = await read_policy(gpu, driver_env)
    if found is policy:
        yield
        return
    undo = [sys.executable, "-m", "fairshare.sharing.undo", "timeslice", gpu]
    step = scope.journal.intend(
        f"time-slice policy {policy.value} on GPU {gpu}",
        [[*undo, policy.value, found.value]],
        {**driver_env, **undo_env()},
    )
    env = scope.labelled(driver_env)
    try:
        await set_policy(gpu, env, policy)
        scope.events.emit("timeslice.set", gpu=gpu, policy=policy.value, found=found.value)
        yield
    finally:
        now = await to_the_end(_put_back(gpu, env, policy, found))
        scope.journal.done(step)
        if now is not found:
            raise PartitionError(
                f"the time-slice policy of GPU {gpu} was {found.value}, and is {now.value}: "
                "somebody else has set it meanwhile, so it was left alone"
            )
        scope.events.emit("timeslice.restored", gpu=gpu, policy=found.value)


async def _put_back(
    gpu: str, driver_env: Mapping[str, str], ours: TimeslicePolicy, found: TimeslicePolicy
) -> TimeslicePolicy:
    """Set the policy that was found where ours is in force, and return what is in force then.

    Raises:
        PartitionError: that does not succeed.
    """
    now = await read_policy(gpu, driver_env)
    if now is not ours:
        return now
    await set_policy(gpu, driver_env, found)
    return found


async def undo_policy(arguments: Sequence[str]) -> None:
    """Put a policy back where the one that a dead run has set is still in force.

    Raises:
        PartitionError: that does not succeed.
    """
    gpu, ours, found = arguments
    if simulation_is_gone():
        return
    await _put_back(gpu, {}, TimeslicePolicy(ours), TimeslicePolicy(found))


def _hint(answer: Answer) -> str | None:
    return HINT if "permission" in answer.output.lower() else None
