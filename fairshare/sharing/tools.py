"""Run a driver tool: bounded in time, both outputs together, never through a shell."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from fairshare import users
from fairshare.devices.driver import STATE_VARIABLE
from fairshare.errors import PartitionError
from fairshare.sharing import rights

_ORPHANED_AT_BIRTH = 70
_UNKILLABLE_S = 10.0  # for a change that sudo makes and that we may not cut short


class ToolMissingError(PartitionError):
    """The driver tool is not installed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool said. Neither its words nor its exit code alone prove that it did anything."""

    argv: tuple[str, ...]
    returncode: int
    output: str

    @property
    def lines(self) -> list[str]:
        """Its output without empty lines."""
        return [line for line in self.output.splitlines() if line.strip()]


def tool_env(driver_env: Mapping[str, str]) -> dict[str, str]:
    """The environment driver tools run in: ours, with the stand-ins' over it."""
    return {**os.environ, **driver_env}


def undo_env() -> dict[str, str]:
    """What lets a later process run our undo commands, from whatever folder."""
    return {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def simulation_is_gone() -> bool:
    """Whether our environment leads to a simulated GPU whose folder has been removed."""
    simulated = os.environ.get(STATE_VARIABLE)
    return simulated is not None and not Path(simulated).is_dir()


async def run_tool(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    timeout_s: float,
    text: str = "",
    privileged: bool = False,
) -> Answer:
    """Run ``argv`` with exactly ``env`` and ``text`` on its input.

    ``privileged``: it changes the driver, which :mod:`fairshare.sharing.rights` says how to do.

    Raises:
        ToolMissingError: there is no such program.
        PartitionError: it did not end in time (it was killed).
    """
    if privileged and (prefix := rights.prefix(env)):
        asked = await _run([*prefix, *argv], {**env, "LC_ALL": "C"}, timeout_s, text)
        if not rights.sudo_refused(asked.returncode, asked.output):
            return replace(asked, argv=tuple(argv))
    in_child = rights.in_child(env) if privileged else None
    return await _run(argv, env, timeout_s, text, in_child)


async def _run(
    argv: Sequence[str],
    env: Mapping[str, str],
    timeout_s: float,
    text: str,
    in_child: Callable[[], None] | None = None,
) -> Answer:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=dict(env),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            preexec_fn=partial(_in_child, os.getpid(), in_child),
        )
    except OSError as error:
        raise ToolMissingError(
            f"{argv[0]} cannot be run: {error.strerror}",
            hint="it comes with the NVIDIA driver; is it on PATH?",
        ) from None
    output: bytes | None = None
    try:
        output, _ = await asyncio.wait_for(process.communicate(text.encode()), timeout_s)
    except TimeoutError:
        pass
    finally:
        await _end(process)
    if output is None:
        how = "still runs" if process.returncode is None else "was killed"
        raise PartitionError(f"{' '.join(argv)} did not answer within {timeout_s:g} s and {how}")
    return Answer(tuple(argv), process.returncode or 0, output.decode("utf-8", "replace"))


def _in_child(parent: int, then: Callable[[], None] | None) -> None:
    """What the tool's process does between fork and exec.

    A Ctrl-C at the terminal reaches it as well, and a closing terminal; it is we who are meant, and
    a change that is cut short would be taken for one that failed.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.getppid() != parent:
        os._exit(_ORPHANED_AT_BIRTH)  # whoever cleans up after us must not find a change begin
    if then is not None:
        then()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a tool that still runs; what sudo runs cannot be killed, and has a while to come to."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        try:
            with users.as_root():
                process.kill()
        except PermissionError:
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _UNKILLABLE_S)
        else:
            await process.wait()
