"""Find MPS daemons that are not ours. They are never touched: where one matters, we refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fairshare.devices.driver import STATE_VARIABLE
from fairshare.errors import PartitionError
from fairshare.processes.labelled import RUN_LABEL, environment_of
from fairshare.processes.table import ProcessRow, snapshot
from fairshare.sharing.mps_control import CONTROL, PIPE_VARIABLE, MpsControl
from fairshare.sharing.tools import ToolMissingError

DEFAULT_PIPES = (Path("/tmp/nvidia-mps"), Path("/run/nvidia-mps"))  # noqa: S108 - NVIDIA's choice
# The kernel keeps 15 letters of a name: those of the control program and of the server alike.
_NAME = CONTROL[:15]


async def refuse_foreign_daemon(
    driver_env: Mapping[str, str], pipes: Sequence[Path] = DEFAULT_PIPES
) -> None:
    """Make sure that no MPS daemon of somebody else's could take our servers in or share the GPU.

    Raises:
        PartitionError: one answers where CUDA looks for one unasked, or runs anywhere else.
    """
    for pipe_dir in pipes:
        try:
            found = await MpsControl(pipe_dir, driver_env).answers()
        except ToolMissingError:
            break
        if found:
            raise PartitionError(
                f"somebody else's MPS daemon answers in {pipe_dir}, where CUDA looks unasked",
                hint=f"let its owner stop it: echo quit | {PIPE_VARIABLE}={pipe_dir} {CONTROL}",
            )
    if foreign := foreign_daemons(driver_env):
        raise PartitionError(
            f"somebody else's MPS runs: {', '.join(f'process {row.pid}' for row in foreign)}",
            hint="let its owner stop it (echo quit | nvidia-cuda-mps-control, with the "
            f"{PIPE_VARIABLE} it was started with); fairshare starts a daemon of its own",
        )


def foreign_daemons(driver_env: Mapping[str, str]) -> list[ProcessRow]:
    """Control daemons and servers of MPS that no run of fairshare has started.

    On a simulated GPU those that belong to it; else NVIDIA's own.
    """
    gpu = driver_env.get(STATE_VARIABLE)
    candidates = [row for row in snapshot().values() if row.name == _NAME and not row.ended]
    return [row for row in candidates if _is_foreign(environment_of(row.pid), gpu)]


def _is_foreign(env: Mapping[str, str], gpu: str | None) -> bool:
    """An environment that cannot be read is another user's: foreign, and a real daemon's."""
    return env.get(STATE_VARIABLE) == gpu and RUN_LABEL not in env
