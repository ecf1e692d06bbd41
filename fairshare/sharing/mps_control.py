"""Ask and tell the MPS control daemon of a pipe directory; every value that is set is read back.

The control program's exit code only says that a daemon was reached: a bad command, a bad value and
a refusal all end with 0. It shows percentages with one digit after the point and limits of a GiB or
more in whole GiB, rounded down, so that is how they are set here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from fairshare.devices.constants import GIB
from fairshare.errors import PartitionError
from fairshare.sharing.tools import Answer, run_tool, tool_env

CONTROL = "nvidia-cuda-mps-control"
PIPE_VARIABLE = "CUDA_MPS_PIPE_DIRECTORY"
LOG_VARIABLE = "CUDA_MPS_LOG_DIRECTORY"
PERCENTAGE_VARIABLE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
MEMORY_VARIABLE = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"
PARTITION_VARIABLE = "CUDA_MPS_SM_PARTITION"

QUIT_S = 5
_ANSWER_S = 10.0  # it answers in milliseconds, but starts slowly on a machine that is busy
_DEVICE = 0  # the daemon sees one device only, whatever its number outside


class MpsControl:
    """The control program, pointed at one pipe directory."""

    def __init__(self, pipe_dir: Path, driver_env: Mapping[str, str]) -> None:
        self.pipe_dir = pipe_dir
        self._env = {**tool_env(driver_env), PIPE_VARIABLE: str(pipe_dir)}

    async def ask(self, command: str, timeout_s: float = _ANSWER_S) -> Answer:
        """Send one command.

        Raises:
            PartitionError: the control program is missing or does not answer.
        """
        return await run_tool([CONTROL], self._env, timeout_s=timeout_s, text=f"{command}\n")

    async def answers(self) -> bool:
        """Whether a daemon answers here.

        Raises:
            PartitionError: the control program is missing or hangs.
        """
        if not (self.pipe_dir / "control").exists():
            return False
        return (await self.ask("get_server_list")).returncode == 0

    async def servers(self) -> list[int]:
        """The pids of the daemon's MPS servers: one at most, and none before the first client.

        Raises:
            PartitionError: the daemon does not answer.
        """
        return _pids(await self._told("get_server_list"))

    async def clients(self, server: int) -> list[int]:
        """The pids of a server's clients; none if there is no such server.

        Raises:
            PartitionError: the daemon does not answer.
        """
        return _pids(await self._told(f"get_client_list {server}"))

    async def status(self, server: int) -> str | None:
        """``INITIALIZING``, ``ACTIVE`` or ``FAULT``; None where it is not told (before driver 550).

        Raises:
            PartitionError: the daemon does not answer.
        """
        word = (await self._told(f"get_server_status {server}")).output.strip()
        return word if word.isupper() and word.isalpha() else None

    async def server_percentage(self, server: int) -> float | None:
        """The thread percentage that a server has in force; None while it does not say.

        Raises:
            PartitionError: the daemon does not answer.
        """
        return _number((await self._told(f"get_active_thread_percentage {server}")).output)

    async def limit_percentage(self, fraction: float) -> float:
        """Let no client have more of the SMs than ``fraction``; return the percentage in force.

        Rounded up to a tenth of a percent, so that it never tightens a client's own limit.

        Raises:
            PartitionError: another value is in force afterwards.
        """
        wanted = min(100.0, math.ceil(1000 * fraction - 1e-6) / 10)
        await self._told(f"set_default_active_thread_percentage {wanted:.1f}")
        output = (await self._told("get_default_active_thread_percentage")).output
        found = _number(output)
        if found is None or abs(found - wanted) > 1e-6:
            raise _differs("default thread percentage", f"{wanted:.1f}", output)
        return found

    async def limit_memory(self, count: int) -> int:
        """Let no client have more of the device's memory than ``count`` bytes; what is in force.

        Rounded up to whole GiB, so that it never tightens a client's own limit.

        Raises:
            PartitionError: another value is in force afterwards.
        """
        wanted_gib = max(1, math.ceil(count / GIB))
        await self._told(f"set_default_device_pinned_mem_limit {_DEVICE} {wanted_gib}G")
        output = (await self._told(f"get_default_device_pinned_mem_limit {_DEVICE}")).output
        if output.strip() != f"{wanted_gib}G":
            raise _differs("default memory limit", f"{wanted_gib}G", output)
        return wanted_gib * GIB

    async def quit(self) -> int:
        """Ask the daemon to end, and its servers within `QUIT_S`; return the exit code.

        Raises:
            PartitionError: it does not come to an end, which a server that hangs can cause.
        """
        return (await self.ask(f"quit -t {QUIT_S}", QUIT_S + _ANSWER_S)).returncode

    async def _told(self, command: str) -> Answer:
        answer = await self.ask(command)
        if answer.returncode != 0:
            raise PartitionError(
                f"the MPS daemon in {self.pipe_dir} does not answer {command!r}",
                evidence=answer.lines,
            )
        return answer


async def quit_daemon(pipe_dir: Path, driver_env: Mapping[str, str]) -> None:
    """Ask the daemon of a pipe directory to end within a limit; well where there is none.

    Raises:
        PartitionError: it still answers afterwards.
    """
    control = MpsControl(pipe_dir, driver_env)
    if not await control.answers():
        return
    await control.quit()
    if await control.answers():
        raise PartitionError(f"the MPS daemon in {pipe_dir} does not quit")


def _differs(what: str, wanted: str, output: str) -> PartitionError:
    found = output.strip() or "nothing"
    return PartitionError(f"the MPS daemon's {what} was set to {wanted}, and it says {found}")


def _pids(answer: Answer) -> list[int]:
    """The numbers of a list; other words (``Server 12 not found``) are no list."""
    return [int(line) for line in answer.lines if re.fullmatch(r"\s*\d+\s*", line)]


def _number(text: str) -> float | None:
    try:
        return float(text.strip())
    except ValueError:
        return None
