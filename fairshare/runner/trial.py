"""Whether each mode can be had at all: the device is shared once, and a process tries each share.

The doctor changes nothing, and so cannot tell whether an MPS daemon, say, starts and takes clients.
"""

from __future__ import annotations

from dataclasses import replace

from fairshare.errors import FairshareError, StoppedEarlyError
from fairshare.processes.scope import RunScope
from fairshare.records import Mode
from fairshare.runner.plan import Deployment, RunPlan, partitioner_of
from fairshare.runner.settings import Settings
from fairshare.sharing.probing import probe_shares


async def failing_modes(settings: Settings, plan: RunPlan, scope: RunScope) -> dict[Mode, str]:
    """The plan's modes that cannot be had on this machine, and why; no server is started.

    Raises:
        FairshareError: the device was shared but could not be put back.
        StoppedEarlyError: what undoes a change could not be written.
    """
    firsts: dict[Mode, Deployment] = {}
    for deployment in plan.deployments:
        firsts.setdefault(deployment.plan.mode, deployment)
    found = {mode: await _failure(settings, first, scope) for mode, first in firsts.items()}
    return {mode: reason for mode, reason in found.items() if reason is not None}


async def _failure(settings: Settings, deployment: Deployment, scope: RunScope) -> str | None:
    partitioner = partitioner_of(settings, deployment.plan.mode)
    driver = settings.driver
    taken = False
    try:
        async with partitioner.apply(deployment.plan, scope) as shared:
            await probe_shares(shared, replace(driver, env=scope.labelled(driver.env)))
            taken = True
    except StoppedEarlyError:
        raise
    except FairshareError as error:
        if taken:
            raise
        return str(error)
    return None
