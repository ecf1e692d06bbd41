"""Prompts of a ShareGPT JSON file: the first human turn of each conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from fairshare.errors import Location, SpecError
from fairshare.workload.files import FilePrompt, bad_json, read

_HUMAN = ("human", "user")
_MODEL = ("gpt", "assistant", "chatgpt")


def read_sharegpt(path: Path) -> list[FilePrompt]:
    """The prompts, with the reply that followed (its length is the default output length).

    Conversations that do not begin with a human turn and a reply are left out, as other tools do.

    Raises:
        SpecError: with the place, for a missing file, bad JSON or another structure.
    """
    try:
        raw = orjson.loads(read(path, "ShareGPT file"))
    except orjson.JSONDecodeError as error:
        raise bad_json(error, path) from None
    if not isinstance(raw, list):
        raise SpecError("the file is not a list of conversations", where=Location(path, 1, 1))
    prompts = [
        prompt
        for number, conversation in enumerate(raw, start=1)
        if (prompt := _prompt(conversation, number, Location(path))) is not None
    ]
    if not prompts:
        raise SpecError(
            f"none of the {len(raw)} conversations begins with a human turn and a reply",
            where=Location(path),
        )
    return prompts


def _prompt(conversation: Any, number: int, where: Location) -> FilePrompt | None:
    turns = conversation.get("conversations") if isinstance(conversation, dict) else None
    if not isinstance(turns, list) or not all(_is_turn(turn) for turn in turns):
        raise SpecError(
            f"conversation {number} has no list 'conversations' of turns with 'from' and 'value'",
            where=where,
        )
    if len(turns) < 2 or turns[0]["from"] not in _HUMAN or turns[1]["from"] not in _MODEL:
        return None
    if not turns[0]["value"] or not turns[1]["value"]:
        return None
    return FilePrompt(turns[0]["value"], where, reply=turns[1]["value"])


def _is_turn(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and isinstance(turn.get("from"), str)
        and isinstance(turn.get("value"), str)
    )
