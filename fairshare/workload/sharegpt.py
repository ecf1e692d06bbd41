"""Conversations of a ShareGPT JSON file: human turns, each with the reply that followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from fairshare.errors import Location, SpecError
from fairshare.workload.files import FilePrompt, bad_json, read

_HUMAN = ("human", "user")
_MODEL = ("gpt", "assistant", "chatgpt")


def read_sharegpt(path: Path) -> list[FilePrompt]:
    """The first human turns, each with the reply, whose length is the default output length.

    Raises:
        SpecError: as :func:`read_conversations`.
    """
    return [turns[0] for turns in read_conversations(path)]


def read_conversations(path: Path) -> list[list[FilePrompt]]:
    """The human turns of each conversation with their replies, as long as the two alternate.

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
    found = [
        prompts
        for number, conversation in enumerate(raw, start=1)
        if (prompts := _prompts(conversation, number, Location(path)))
    ]
    if not found:
        raise SpecError(
            f"none of the {len(raw)} conversations begins with a human turn and a reply",
            where=Location(path),
        )
    return found


def _prompts(conversation: Any, number: int, where: Location) -> list[FilePrompt]:
    turns = conversation.get("conversations") if isinstance(conversation, dict) else None
    if not isinstance(turns, list) or not all(_is_turn(turn) for turn in turns):
        raise SpecError(
            f"conversation {number} has no list 'conversations' of turns with 'from' and 'value'",
            where=where,
        )
    prompts: list[FilePrompt] = []
    for asked, replied in zip(turns[::2], turns[1::2], strict=False):
        if asked["from"] not in _HUMAN or replied["from"] not in _MODEL:
            break
        if not asked["value"] or not replied["value"]:
            break
        prompts.append(FilePrompt(asked["value"], where, reply=replied["value"]))
    return prompts


def _is_turn(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and isinstance(turn.get("from"), str)
        and isinstance(turn.get("value"), str)
    )
