"""Run a driver tool: bounded in time, both outputs together, never through a shell."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fairshare import users
from fairshare.errors import PartitionError
from fairshare.sharing import rights


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
            preexec_fn=in_child,
        )
    except OSError as error:
        raise ToolMissingError(
            f"{argv[0]} cannot be run: {error.strerror}",
            hint="it comes with the NVIDIA driver; is it on PATH?",
        ) from None
    try:
        output, _ = await asyncio.wait_for(process.communicate(text.encode()), timeout_s)
    except TimeoutError:
        raise PartitionError(
            f"{' '.join(argv)} did not answer within {timeout_s:g} s and was killed"
        ) from None
    finally:
        if process.returncode is None:
            # What runs as root cannot be killed by us, and must not be waited for either.
            with suppress(ProcessLookupError, PermissionError):
                with users.as_root():
                    process.kill()
                await process.wait()
    return Answer(tuple(argv), process.returncode or 0, output.decode("utf-8", "replace"))
