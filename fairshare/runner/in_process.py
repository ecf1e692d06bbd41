"""Requests to vLLM without HTTP: for what that can be asked for, and how it is told apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from fairshare.errors import SpecError
from fairshare.records import Mode
from fairshare.serving.plugins import socket_env
from fairshare.sharing.plan import PartitionPlan
from fairshare.spec.launcher import Engine, Launcher
from fairshare.spec.scenario import Api, Tenant

_MODES = (Mode.EXCLUSIVE, Mode.LOGICAL)
_NOTE = (
    "in-process, no HTTP: requests went straight to vLLM's AsyncLLM in the server's process, "
    "and tokens are timed as it gave them"
)


def check_in_process(launcher: Launcher, modes: Sequence[Mode], tenants: Iterable[Tenant]) -> None:
    """Refuse what cannot be asked of an engine without its HTTP server.

    Raises:
        SpecError: another engine or mode, or a tenant that needs what the server does.
    """
    if launcher.engine is not Engine.VLLM:
        raise SpecError(
            f"launcher {launcher.name} has no transport in-process, only vLLM's have",
            hint="leave --transport out, or take a vLLM launcher with --device cpu or cuda",
        )
    if others := [mode.value for mode in modes if mode not in _MODES]:
        raise SpecError(
            f"transport in-process is for one server for all tenants, not for {', '.join(others)}",
            hint="use modes logical and exclusive, or leave --transport out",
        )
    for tenant in tenants:
        api = tenant.api or launcher.apis[0]
        if api is not Api.COMPLETIONS:
            raise SpecError(
                f"tenant {tenant.name}: api {api.value} is made by the HTTP server, which "
                "transport in-process leaves out",
                hint="use api completions, or leave --transport out",
            )
        if tenant.adapter:
            raise SpecError(
                f"tenant {tenant.name}: adapters are chosen by the HTTP server, which transport "
                "in-process leaves out",
                hint="remove adapter, or leave --transport out",
            )


def made_in_process(plan: PartitionPlan) -> PartitionPlan:
    """The plan with servers that take requests without HTTP, which its label and notes say."""
    slots = tuple(replace(slot, env={**slot.env, **socket_env()}) for slot in plan.slots)
    return replace(plan, label=f"{plan.label}-in-process", slots=slots, notes=(*plan.notes, _NOTE))
