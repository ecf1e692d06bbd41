"""Prints the options of the installed vLLM server as JSON. Run by path, in the engine's own Python.

Standard library and vLLM only: fairshare is not installed where this runs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
from typing import Any

# Newest first: the parser has moved between releases.
_PARSERS = ("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.openai.cli_args")
_BASES = ("vllm.utils.argparse_utils", "vllm.utils")
# What an option accepts is told by offering it samples, since its type may be any callable.
_SAMPLES = {"text": "no number", "json": "{}", "number": "1.5", "whole": "1", "size": "2K"}


def _first(modules: tuple[str, ...], name: str) -> Any:
    for module in modules:
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(module), name)
    raise ImportError(f"no {name} in any of {', '.join(modules)}")


def _accepts(action: argparse.Action) -> list[str]:
    if action.type is None:
        return list(_SAMPLES)
    if not callable(action.type):
        return list(_SAMPLES)
    kinds = []
    for kind, sample in _SAMPLES.items():
        with contextlib.suppress(Exception):
            action.type(sample)
            kinds.append(kind)
    return kinds


def _described(action: argparse.Action) -> dict[str, Any]:
    flags = [flag for flag in action.option_strings if flag.startswith("--")]
    return {
        "flags": flags,
        "switch": action.nargs == 0,
        "negatable": any(flag.startswith("--no-") for flag in flags),
        "several": action.nargs in ("+", "*") or isinstance(action.nargs, int),
        "choices": [str(choice) for choice in action.choices] if action.choices else None,
        "accepts": _accepts(action),
    }


def main() -> None:
    """Write the list of options to standard output; vLLM's own chatter goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        parser = _first(_PARSERS, "make_arg_parser")(_first(_BASES, "FlexibleArgumentParser")())
        options = [_described(action) for action in parser._actions]
    json.dump([option for option in options if option["flags"]], sys.stdout)


if __name__ == "__main__":
    main()
