"""Engine arguments against the installed engine's own parser."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fairshare.errors import PreflightError, SpecError
from fairshare.serving import arguments
from fairshare.serving.arguments import check_arguments
from fairshare.serving.interpreter import EngineFacts
from fairshare.spec.launcher import Engine, Launcher

OPTIONS = [
    ("max-model-len", {"accepts": ["whole", "size"]}),
    ("gpu-memory-utilization", {"accepts": ["number", "whole"]}),
    ("tensor-parallel-size", {"accepts": ["whole"]}),
    ("tokenizer", {"accepts": ["text", "json", "number", "whole", "size"]}),
    ("dtype", {"accepts": ["text"], "choices": ["auto", "bfloat16", "float16"]}),
    ("lora-modules", {"accepts": ["text"], "several": True}),
    ("compilation-config", {"accepts": ["json"]}),
    ("enforce-eager", {"switch": True, "negatable": True}),
    ("headless", {"switch": True}),
]
_PLAIN = {"switch": False, "negatable": False, "several": False, "choices": None, "accepts": []}


@pytest.fixture(name="asked", autouse=True)
def _asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[EngineFacts]:
    """An engine with a few options, and how often it was asked for them."""
    asked: list[EngineFacts] = []

    def ask(facts: EngineFacts) -> Any:
        asked.append(facts)
        entries = []
        for name, changes in OPTIONS:
            entry = _PLAIN | {"flags": [f"--{name}"]} | changes
            if entry["negatable"]:
                entry["flags"] = [f"--{name}", f"--no-{name}"]
            entries.append(entry)
        return entries

    monkeypatch.setenv("FAIRSHARE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(arguments, "_ask_engine", ask)
    return asked


def _launcher(args: dict[str, Any], engine: str = "vllm") -> Launcher:
    values = {"name": "x", "engine": engine, "command": ["run"], "args": args}
    return Launcher.model_validate(values)


@pytest.mark.parametrize(
    "args",
    [
        {"max_model_len": 2048},
        {"max-model-len": "2k"},
        {"max_model_len": "auto"},
        {"gpu_memory_utilization": 0.5},
        {"dtype": "bfloat16"},
        {"tokenizer": "anything"},
        {"lora_modules": ["a=b", "c=d"]},
        {"enforce_eager": False},
        {"compilation_config": '{"level": 3}'},
        {"compilation_config.level": 3},
        {"no_such": None},
    ],
)
def test_what_the_engine_takes_is_taken(args: dict[str, Any]) -> None:
    """Arguments in any form that the engine accepts pass."""
    check_arguments(_launcher(args), sys.executable)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"max_model_length": 1}, "did you mean max_model_len?"),
        ({"zzz": 1}, "no option --zzz"),
        ({"max_model_len": "long"}, "wants a whole number, which may end in K, M or G"),
        ({"gpu_memory_utilization": "half"}, "wants a number"),
        ({"tensor_parallel_size": 1.5}, "wants a whole number"),
        ({"dtype": "bfloat61"}, "did you mean bfloat16?"),
        ({"dtype": ["auto"]}, "takes one value"),
        ({"enforce_eager": "yes"}, "is a switch"),
        ({"dtype": True}, "takes a value"),
        ({"headless": False}, "no --no- form"),
        ({"compilation_config": "fast"}, "wants JSON"),
    ],
)
def test_what_the_engine_would_refuse_is_refused(args: dict[str, Any], says: str) -> None:
    """An argument that the engine would refuse is an error that says what it wants instead."""
    with pytest.raises(SpecError) as caught:
        check_arguments(_launcher(args), sys.executable)
    assert says in str(caught.value)
    assert next(iter(args)) in caught.value.message


def test_the_engine_is_asked_once_per_version(asked: list[EngineFacts]) -> None:
    """The options are kept on disk: only the first check has to import the engine."""
    for _ in range(3):
        check_arguments(_launcher({"dtype": "auto"}), sys.executable)
    assert len(asked) == 1


def test_a_damaged_memory_of_the_options_is_asked_for_again(
    asked: list[EngineFacts], tmp_path: Path
) -> None:
    """A file cut short does not stand in the way: the engine is asked again."""
    check_arguments(_launcher({"dtype": "auto"}), sys.executable)
    (path,) = tmp_path.rglob("options-*.json")
    path.write_text(path.read_text("utf-8")[:20], "utf-8")
    check_arguments(_launcher({"dtype": "auto"}), sys.executable)
    assert len(asked) == 2
    assert json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("engine", ["tgi", "sglang", "transformers", "virtual"])
def test_other_engines_are_not_judged(engine: str, asked: list[EngineFacts]) -> None:
    """Nothing is claimed about the arguments of engines that cannot be asked."""
    check_arguments(_launcher({"whatever": "x"}, engine), sys.executable)
    assert not asked


def test_an_engine_that_cannot_be_imported_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken installation is an error with the import's own complaint and what to do."""
    monkeypatch.undo()
    monkeypatch.setenv("FAIRSHARE_CACHE_DIR", str(tmp_path))
    facts = EngineFacts(Engine.VLLM, sys.executable, "1.0")
    with pytest.raises(PreflightError, match="ImportError: no make_arg_parser") as caught:
        arguments._ask_engine(facts)
    assert caught.value.hint
