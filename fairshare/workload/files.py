"""Prompts that come from a file: one value type, and reading that fails with a place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson

from fairshare.errors import Location, SpecError


@dataclass(frozen=True, slots=True)
class FilePrompt:
    """One prompt of a dataset; ``max_tokens`` and ``reply`` where the file has them."""

    text: str
    where: Location
    max_tokens: int | None = None
    reply: str | None = None


def resolve(path: str, base_dir: Path) -> Path:
    """A path as a scenario writes it: ``~`` is home, relative ones are relative to the scenario."""
    expanded = Path(path).expanduser()
    return expanded if expanded.is_absolute() else base_dir / expanded


def require_file(path: Path, what: str) -> None:
    """Check that ``path`` is a regular file.

    Raises:
        SpecError: it is missing or something else.
    """
    try:
        if path.is_file():
            return
        problem = "is not a file" if path.exists() else "does not exist"
    except OSError as error:  # a name that no file system takes
        raise unreadable(error, path, what) from None
    else:
        raise SpecError(
            f"the {what} {problem}",
            where=Location(path),
            hint="paths in a scenario are relative to the scenario's file",
        )


def unreadable(error: OSError, path: Path, what: str) -> SpecError:
    """The complaint about a file that the system does not let us read."""
    return SpecError(f"the {what} cannot be read: {error.strerror}", where=Location(path))


def read(path: Path, what: str) -> bytes:
    """The contents of a file.

    Raises:
        SpecError: it is missing, no regular file, or not readable.
    """
    require_file(path, what)
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(error, path, what) from None


def bad_json(error: orjson.JSONDecodeError, path: Path, line: int | None = None) -> SpecError:
    """The complaint about text that is no JSON; ``line`` where the text is one line of a file."""
    where = Location(path, line or error.lineno, error.colno)
    return SpecError(f"not valid JSON: {error.msg}", where=where)
