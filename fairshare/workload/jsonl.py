"""Prompts of a JSONL file: an object a line with ``prompt`` and, optionally, ``max_tokens``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from fairshare.errors import Location, SpecError
from fairshare.workload.files import FilePrompt, bad_json, read


def read_jsonl(path: Path) -> list[FilePrompt]:
    """All prompts of the file; keys other than ``prompt`` and ``max_tokens`` are ignored.

    Raises:
        SpecError: with file and line, for a missing file, bad JSON or a wrong value.
    """
    lines = read(path, "file of prompts").splitlines()
    prompts = [
        _prompt(_parse(line, path, number), Location(path, number))
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not prompts:
        raise SpecError("the file holds no prompts", where=Location(path))
    return prompts


def _parse(line: bytes, path: Path, number: int) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise bad_json(error, path, number) from None


def _prompt(raw: Any, where: Location) -> FilePrompt:
    if not isinstance(raw, dict) or "prompt" not in raw:
        raise SpecError(
            "the line is not an object with a prompt",
            where=where,
            hint='write each line like {"prompt": "Why is the sky blue?", "max_tokens": 64}',
        )
    text, max_tokens = raw["prompt"], raw.get("max_tokens")
    if not isinstance(text, str) or not text:
        raise SpecError("prompt is not a text that says something", where=where)
    if max_tokens is not None and (type(max_tokens) is not int or max_tokens < 1):
        raise SpecError(f"max_tokens is {max_tokens!r}, not a number of 1 or more", where=where)
    return FilePrompt(text, where, max_tokens)
