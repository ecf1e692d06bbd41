"""A fair scheduler inside vLLM: what its server is started with, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairshare.errors import SpecError
from fairshare.scheduling.policy import Tenants
from fairshare.scheduling.told import told
from fairshare.serving.plugins import DECISIONS_VARIABLE, PACKAGE, SCHEDULER_VARIABLE
from fairshare.spec.launcher import ArgValue, Engine, Launcher

DECISIONS_FILE = "decisions.jsonl"


@dataclass(frozen=True, slots=True)
class EngineScheduling:
    """``args`` go over the launcher's own, ``env`` over each slot's.

    Clients must then say in each body whose request it is (``Target.labelled``).
    """

    args: Mapping[str, ArgValue]
    env: Mapping[str, str]


def engine_scheduling(
    launcher: Launcher,
    policy: str,
    options: Mapping[str, Any] | None = None,
    tenants: Tenants | None = None,
    *,
    decisions: str = DECISIONS_FILE,
) -> EngineScheduling:
    """What makes a server of this launcher follow a policy of ours in its own scheduler.

    ``decisions`` is the file that the engine writes each decision to, a JSON line each; a relative
    path is one in the server's private folder, which is deleted with the server.

    Raises:
        SpecError: another engine, a scheduler of the user's own, or no such policy or option.
    """
    if launcher.engine not in (Engine.VLLM, Engine.VIRTUAL):
        raise SpecError(
            f"launcher {launcher.name} cannot schedule in its engine, only vLLM's can",
            hint="use --scheduling gateway, which stands before any server",
        )
    if any(name.lstrip("-").replace("-", "_") == "scheduler_cls" for name in launcher.args):
        raise SpecError(
            f"launcher {launcher.name} has a scheduler of its own (args.scheduler_cls)",
            hint="remove it, or use --scheduling gateway",
        )
    try:
        line = told(policy, options, tenants)
    except ValueError as error:
        raise SpecError(str(error)) from None
    ours = {"scheduler_cls": f"{PACKAGE}.fair_scheduler.FairScheduler"}
    return EngineScheduling(
        args=ours if launcher.engine is Engine.VLLM else {},  # the simulated engine reads ``env``
        # Not vLLM's --additional-config: that is part of the key of its compile cache.
        env={
            SCHEDULER_VARIABLE: line,
            DECISIONS_VARIABLE: decisions,
        },
    )
