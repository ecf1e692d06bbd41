"""What can be known to be wrong with a plan's servers before one of them is started."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

from fairshare.errors import InfeasibleError, SpecError
from fairshare.runner.settings import Settings
from fairshare.serving.command import server_command
from fairshare.serving.memory import gpu_memory
from fairshare.serving.precheck import check_slot
from fairshare.sharing.plan import PartitionPlan, Slot
from fairshare.spec.launcher import Engine, Launcher
from fairshare.units import format_bytes
from fairshare.virtual.memory import StartError, plan_memory
from fairshare.virtual.models import virtual_model
from fairshare.virtual.options import parser

_SIMULATED = "fairshare.virtual.server"


def check_servers(settings: Settings, launcher: Launcher, plan: PartitionPlan) -> None:
    """Check each server's command line, model and memory.

    ``launcher`` is that of the deployment.

    Raises:
        InfeasibleError: the share of a server is too small for its model.
        SpecError: a launcher's argument or placeholder is wrong.
    """
    if launcher.engine is Engine.EXTERNAL:
        return
    for slot in plan.slots:
        model = settings.models[slot.model]
        check_slot(launcher, slot, model, settings.device)
        command = server_command(
            launcher,
            slot,
            model,
            device=settings.device,
            port=1,
            run_dir=Path(),
            python=settings.python,
        )
        if launcher.engine is Engine.VIRTUAL:
            _check_simulated_memory(settings, slot)
            _check_simulated_arguments(command.argv)


def _check_simulated_arguments(argv: Sequence[str]) -> None:
    """The simulated engine's own parser, asked before it starts, as a real engine's is."""
    if _SIMULATED not in argv:
        return  # a program of the user's own in its place
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser().parse_args(argv[argv.index(_SIMULATED) + 1 :])
    except SystemExit:
        reason = said.getvalue().rpartition("error: ")[2].strip()
        raise SpecError(
            f"the simulated engine does not take its arguments: {reason}",
            hint="see fairshare serve-virtual --help",
        ) from None


def _check_simulated_memory(settings: Settings, slot: Slot) -> None:
    """The simulated engine's own sizing, asked before it starts."""
    memory = gpu_memory(slot, settings.device)
    asked = settings.launcher.args.get("max_model_len")
    model = virtual_model(slot.model)
    try:
        plan_memory(
            model,
            total_bytes=memory.total_bytes,
            free_bytes=memory.budget_bytes,
            max_model_len=asked if isinstance(asked, int) else model.max_model_len,
            utilization=memory.utilization,
            kv_bytes=None,
        )
    except StartError as error:
        raise InfeasibleError(
            f"server {slot.name} gets {format_bytes(memory.budget_bytes)} of "
            f"{format_bytes(settings.device.memory_bytes)}, too little for {slot.model}: "
            f"{str(error).partition('. ')[0]}",
            hint="take a smaller --model, fewer tenants, or a larger GPU (fairshare list device)",
        ) from None
