"""A policy inside the engine: what a server is started with for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fairshare.records import Scheduling
from fairshare.runner.scheduling import Scheduler
from fairshare.scheduling.policy import Tenants, Terms
from fairshare.serving.engine_scheduling import engine_scheduling
from fairshare.serving.plugins import SCHEDULER_VARIABLE
from fairshare.sharing.plan import PartitionPlan
from fairshare.spec.launcher import ArgValue, Engine, Launcher
from fairshare.spec.scenario import Tenant


def with_scheduler(
    launcher: Launcher,
    plan: PartitionPlan,
    scheduler: Scheduler | None,
    tenants: Sequence[Tenant],
) -> tuple[Launcher, PartitionPlan]:
    """Launcher and plan of servers whose own scheduler does its part (None: as they are).

    Raises:
        SpecError: the launcher's arguments stand against it.
    """
    if scheduler is None or launcher.engine is Engine.EXTERNAL:
        return launcher, plan
    if scheduler.place is Scheduling.PRIORITY:
        return _with(launcher, {"scheduling_policy": "priority"}), plan
    policy = scheduler.policy
    made = engine_scheduling(launcher, policy.kind, policy.options, Tenants(terms_of(tenants)))
    slots = tuple(replace(slot, env={**slot.env, **made.env}) for slot in plan.slots)
    # What the policy is told makes these servers others than those of another policy.
    details = {**plan.details, "scheduler": made.env[SCHEDULER_VARIABLE]}
    return _with(launcher, made.args), replace(plan, slots=slots, details=details)


def terms_of(tenants: Sequence[Tenant]) -> dict[str, Terms]:
    """What each tenant is entitled to and was promised, as policies take it."""
    return {
        tenant.name: Terms(tenant.weight, tenant.slo.e2e_s, tenant.slo.ttft_s) for tenant in tenants
    }


def _with(launcher: Launcher, args: Mapping[str, ArgValue]) -> Launcher:
    return launcher.model_copy(update={"args": {**launcher.args, **args}})
