"""MPS: whether its control program is there, and whether somebody else's daemon is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass

from fairshare.doctor.finding import Finding, fail, ok, warn
from fairshare.doctor.gpu import GpuFacts
from fairshare.doctor.intent import Intent
from fairshare.doctor.mig import MigFacts
from fairshare.errors import PartitionError
from fairshare.records import Mode
from fairshare.sharing.mps_control import CONTROL, PIPE_VARIABLE
from fairshare.sharing.mps_foreign import DEFAULT_PIPES, refuse_foreign_daemon
from fairshare.sharing.tools import run_tool, tool_env
from fairshare.spec.launcher import DeviceKind

_TOOL_S = 10.0
# Driver branches that brought a better way of capping shares.
_BRANCHES = {
    615: "MPS protocol 3 and memory-limits (R615)",
    590: "static SM partitions (R590)",
}


@dataclass(frozen=True, slots=True)
class MpsFacts:
    """MPS on this machine.

    ``control`` says why the control program cannot be used, ``foreign`` whose daemon is in the way
    and ``remedy`` what to do about it; ``pipe`` is the daemon that our own environment names.
    """

    control: str | None = None
    foreign: str | None = None
    remedy: str = ""
    pipe: str | None = None


def gather(intent: Intent) -> MpsFacts:
    """Ask the control program for its help, and whoever runs a daemon for an answer."""
    env = tool_env(intent.driver.env)
    foreign, remedy = None, ""
    try:
        # A daemon that CUDA would find unasked is no business of a simulated GPU.
        pipes = DEFAULT_PIPES if intent.kind is DeviceKind.CUDA else ()
        asyncio.run(refuse_foreign_daemon(intent.driver.env, pipes))
    except PartitionError as error:
        foreign, remedy = error.message, error.hint or "let its owner stop it"
    control = _ask_control(env) if intent.modes & {Mode.MPS, Mode.MIG} else None
    return MpsFacts(control, foreign, remedy, os.environ.get(PIPE_VARIABLE))


def needs_daemon(mig: MigFacts, intent: Intent) -> bool:
    """Whether a daemon of ours will be started."""
    emulated = Mode.MIG in intent.modes and not mig.real and mig.refused is None
    return Mode.MPS in intent.modes or emulated


def check(facts: MpsFacts, gpu: GpuFacts, intent: Intent, *, daemon: bool) -> Iterator[Finding]:
    """What MPS's facts mean for the run; ``daemon``: it will start one."""
    if facts.foreign is not None:
        yield fail("mps daemons", facts.foreign, facts.remedy)
    else:
        yield ok("mps daemons", "nobody else's runs")
    if facts.pipe is not None and intent.kind is DeviceKind.CUDA:
        says = f"{PIPE_VARIABLE} is set ({facts.pipe}): it is not passed on to servers"
        yield warn("mps pipe", says, f"unset {PIPE_VARIABLE}")
    if not daemon:
        return
    if facts.control is not None:
        yield fail("mps control", facts.control, "install it: it comes with the NVIDIA driver")
        return
    branch = _branch(gpu)
    better = [text for first, text in _BRANCHES.items() if branch and branch >= first]
    says = "; ".join(["found, and answers", *(f"the driver has {text}" for text in better)])
    yield ok("mps control", says)


def _branch(gpu: GpuFacts) -> int | None:
    driver = gpu.gpu.driver if gpu.gpu is not None else None
    first = (driver or "").partition(".")[0]
    return int(first) if first.isdigit() else None


def _ask_control(env: dict[str, str]) -> str | None:
    """Why the control program is of no use; None if it is."""
    try:
        # Without a command it starts nothing and reaches nobody.
        answer = asyncio.run(run_tool([CONTROL, "--help"], env, timeout_s=_TOOL_S))
    except PartitionError as error:
        return error.message
    if answer.returncode == 0:
        return None
    last = "".join(f": {line}" for line in answer.lines[-1:])
    return f"{CONTROL} fails (exit code {answer.returncode}){last}"
