"""The engine: in which Python it is, which version, its model, and whether the driver fits it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from fairshare.doctor.finding import Finding, fail, ok, warn
from fairshare.doctor.gpu import GpuFacts
from fairshare.doctor.intent import Intent
from fairshare.errors import PreflightError, SpecError
from fairshare.serving.builtin_models import SHAPES
from fairshare.serving.interpreter import engine_facts, engine_python
from fairshare.serving.models import resolve_model
from fairshare.spec.launcher import DeviceKind, Engine

_ASK_S = 30.0
_OLDEST_VLLM = (0, 26)  # before it the options that launchers/vllm.yaml gives do not exist
# Reads torch's version file: importing torch takes seconds, and on a GPU opens a context.
_ASK_CUDA = """
import importlib.util as util, json, pathlib, re
found = util.find_spec("torch")
text = "" if found is None or not found.origin else (
    pathlib.Path(found.origin).with_name("version.py").read_text())
match = re.search(r"^cuda[^=\\n]*= *'([0-9.]+)'", text, re.M)
print(json.dumps([found is not None, match and match[1]]))
"""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What was seen of the engine without importing it.

    ``missing`` says why there is none; ``torch_cuda`` is the CUDA that its torch was built for;
    ``model`` says why the model is not on this machine, None if it is or none is named.
    """

    missing: str | None = None
    remedy: str = ""
    python: str = ""
    version: str | None = None
    torch: bool = False
    torch_cuda: tuple[int, int] | None = None
    model: str | None = None


def gather(intent: Intent) -> EngineFacts:
    """Look for the engine as a run does, without importing it."""
    if intent.launcher.engine is Engine.EXTERNAL:
        return EngineFacts()
    try:
        python = engine_python(intent.launcher)
    except PreflightError as error:
        return EngineFacts(missing=error.message, remedy=error.hint or "")
    torch, cuda = _ask(python) if intent.kind is DeviceKind.CUDA else (False, None)
    version = engine_facts(intent.launcher, python).version
    return EngineFacts(
        python=python, version=version, torch=torch, torch_cuda=cuda, model=_model_problem(intent)
    )


def check(facts: EngineFacts, gpu: GpuFacts | None, intent: Intent) -> Iterator[Finding]:
    """What the engine's facts mean for the run."""
    engine = intent.launcher.engine
    if engine is Engine.EXTERNAL:
        return
    if facts.missing is not None:
        yield fail("engine", facts.missing, facts.remedy)
        return
    if not intent.real_engine:
        yield ok("engine", "the simulated one, part of fairshare")
        return
    yield _check_version(facts, engine)
    yield from _check_model(facts, intent)
    if gpu is not None and intent.kind is DeviceKind.CUDA:
        yield from _check_cuda(facts, gpu.condition.cuda)


def _check_version(facts: EngineFacts, engine: Engine) -> Finding:
    said = f"{engine.value} {facts.version or 'of unknown version'} in {facts.python}"
    numbers = re.match(r"(\d+)\.(\d+)", facts.version or "")
    if engine is Engine.VLLM and numbers and (int(numbers[1]), int(numbers[2])) < _OLDEST_VLLM:
        oldest = ".".join(map(str, _OLDEST_VLLM))
        upgrade = f"{facts.python} -m pip install 'vllm>={oldest}'"
        return fail("engine", f"{said} is older than {oldest}", upgrade)
    return ok("engine", said)


def _check_model(facts: EngineFacts, intent: Intent) -> Iterator[Finding]:
    if intent.model is None:
        if intent.kind is DeviceKind.CUDA:
            says = "none is named, and only tenants that name their own can run"
            yield warn("model", says, "name one with --model PATH_OR_NAME")
    elif facts.model is not None:
        yield fail("model", facts.model, f"hf download {intent.model}, or name a folder")
    else:
        yield ok("model", intent.model)


def _model_problem(intent: Intent) -> str | None:
    """Why the model cannot be used now; nothing is fetched or made."""
    if intent.model is None or intent.model in SHAPES or not intent.real_engine:
        return None
    try:
        resolve_model(intent.model, allow_download=False)
    except SpecError as error:
        return error.message
    return None


def _check_cuda(facts: EngineFacts, driver: tuple[int, int] | None) -> Iterator[Finding]:
    if facts.torch and facts.torch_cuda is None:
        says = "its torch is built without CUDA: it would not see the GPU"
        yield fail("cuda", says, f"{facts.python} -m pip install 'fairshare[vllm]'")
        return
    if facts.torch_cuda is None or driver is None:
        return
    built, runs = (".".join(map(str, version)) for version in (facts.torch_cuda, driver))
    said = f"torch is built for CUDA {built}, the driver runs CUDA {runs}"
    if driver[0] < facts.torch_cuda[0]:
        yield fail("cuda", said, f"install a driver for CUDA {facts.torch_cuda[0]} or newer")
    elif driver < facts.torch_cuda:
        newer = "install a newer driver if kernels are not found"
        yield warn("cuda", f"{said}: kernels that are compiled at run time may fail", newer)
    else:
        yield ok("cuda", said)


def _ask(python: str) -> tuple[bool, tuple[int, int] | None]:
    """Whether there is a torch, and the CUDA it is built for."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", _ASK_CUDA], capture_output=True, timeout=_ASK_S, check=True
        )
        found, cuda = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return False, None
    if not cuda:
        return bool(found), None
    major, _, minor = str(cuda).partition(".")
    return True, (int(major), int(minor.partition(".")[0] or 0))
