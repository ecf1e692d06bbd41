"""Which policies decide where, and whether they can: what a matrix asks for, written out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairshare.errors import SpecError
from fairshare.records import Mode, Scheduling, TransportKind
from fairshare.spec.launcher import Engine, Launcher
from fairshare.spec.matrix import Matrix
from fairshare.spec.policy import PolicySpec
from fairshare.spec.scenario import Api, Tenant

_FCFS = PolicySpec(kind="fcfs")
_OURS_INSIDE = (Engine.VLLM, Engine.VIRTUAL)  # engines whose scheduler can be another


@dataclass(frozen=True, slots=True)
class Scheduler:
    """A policy and where it decides (None: nowhere, the engine serves in its own order)."""

    policy: PolicySpec
    place: Scheduling | None

    @property
    def behind_gateway(self) -> bool:
        """Whether requests go through a gateway."""
        return self.place in (Scheduling.GATEWAY, Scheduling.PRIORITY)

    @property
    def in_server(self) -> Scheduler | None:
        """What of it the servers must be started with; None if they are as without it.

        Ranks are the gateway's business: every policy that sends some has the same servers.
        """
        if self.place is Scheduling.ENGINE:
            return self
        return Scheduler(_FCFS, self.place) if self.place is Scheduling.PRIORITY else None

    def definition(self, window: int | None) -> dict[str, Any]:
        """What of it defines a cell: nothing, where the engine serves in its own order."""
        if self.place is None:
            return {}
        gateway = {"window": window} if self.behind_gateway else None
        chosen = {"kind": self.policy.kind, "options": dict(self.policy.options)}
        return {"scheduling": {"policy": chosen, "place": self.place, "gateway": gateway}}


OWN_ORDER = Scheduler(_FCFS, None)


def schedulers_of(matrix: Matrix) -> tuple[Scheduler, ...]:
    """Every policy at every place, each once, in the order in which they are written.

    First come, first served is the baseline, and goes the same way as what it is compared with:
    through the gateway where the others do, and as the engine itself does it where the others are
    inside the engine (docs/adr/0010).
    """
    alone = all(policy.is_fcfs for policy in matrix.policies)
    usual = None if alone else Scheduling.GATEWAY
    places: Sequence[Scheduling | None] = matrix.scheduling or [usual]
    found = [_at(policy, place) for policy in matrix.policies for place in places]
    return tuple(each for i, each in enumerate(found) if each not in found[:i])


def _at(policy: PolicySpec, place: Scheduling | None) -> Scheduler:
    if policy.is_fcfs and place in (None, Scheduling.ENGINE):
        return OWN_ORDER
    return Scheduler(policy, place)


def check_schedulers(
    matrix: Matrix, modes: Sequence[Mode], launcher: Launcher, tenants: Iterable[Tenant]
) -> None:
    """Refuse policies where nothing would heed them.

    Raises:
        SpecError: no mode has policies, or a place is not to be had here.
    """
    used = [each for each in schedulers_of(matrix) if each is not OWN_ORDER]
    if not used:
        return
    if Mode.LOGICAL not in modes:
        raise SpecError(
            "policies are for mode logical, where one server has all tenants, and the modes are "
            + ", ".join(mode.value for mode in modes),
            hint="add logical to --modes, or leave --policies out",
        )
    places = {each.place for each in used}
    if Scheduling.ENGINE in places and launcher.engine not in _OURS_INSIDE:
        raise SpecError(
            f"launcher {launcher.name} starts no engine whose scheduler can be another",
            hint="use --scheduling gateway, or a vLLM launcher",
        )
    if Scheduling.PRIORITY in places:
        _check_priority(launcher)
    if matrix.transport is TransportKind.IN_PROCESS and places != {Scheduling.ENGINE}:
        raise SpecError(
            "a gateway speaks HTTP, which transport in-process leaves out",
            hint="use --scheduling engine, or leave --transport out",
        )
    for tenant in tenants:
        _check_tenant(tenant, launcher, places)


def policy_failure(*logs: Path) -> str | None:
    """Why what these logs tell of was not decided by the policy that was asked for, if so.

    A policy that makes a mistake is left for the order of arrival, so that nobody's request is
    lost; what was measured is then not what was asked for.
    """
    for path in logs:
        if not path.exists():
            continue
        with path.open("rb") as file:
            for line in file:
                if line.startswith(b'{"event":"policy_failed"'):
                    error = str(json.loads(line)["error"]).splitlines()[-1].strip()
                    return f"the policy failed, and the order of arrival took its place: {error}"
    return None


def _check_priority(launcher: Launcher) -> None:
    if launcher.engine not in (*_OURS_INSIDE, Engine.EXTERNAL):
        raise SpecError(
            f"launcher {launcher.name} starts no engine that orders by priorities",
            hint="use --scheduling gateway, or a vLLM launcher",
        )


def _check_tenant(tenant: Tenant, launcher: Launcher, places: set[Scheduling | None]) -> None:
    if tenant.priority is not None:
        raise SpecError(
            f"tenant {tenant.name} has a priority of its own, and a policy decides in its place",
            hint="remove priority, or leave --policies out",
        )
    if (tenant.api or launcher.apis[0]) is Api.TGI and places - {Scheduling.GATEWAY}:
        raise SpecError(
            f"tenant {tenant.name}: api tgi does not tell the engine whose a request is",
            hint="use --scheduling gateway, or api completions or chat",
        )


def gateway_window(launcher: Launcher, scheduler: Scheduler) -> int | None:
    """As many requests as the engine runs at once, and an eighth (at least two) more at hand there.

    Without those a place in the batch stays empty until the gateway has heard of it; they are
    served in the engine's own order, so there are few. With priorities there are as many as run:
    what the engine is to put in order must be there. None: what the engine runs at once is not
    stated, and the gateway finds a window by the server's metrics.
    """
    running = launcher.args.get("max_num_seqs")
    if not isinstance(running, int) or isinstance(running, bool) or running < 1:
        return None
    at_hand = running if scheduler.place is Scheduling.PRIORITY else max(2, running // 8)
    return running + at_hand
