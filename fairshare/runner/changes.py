"""What differs between two definitions of a cell, field by field, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_LONGEST_VALUE = 60
_MOST_CHANGES = 12
_ABSENT = "absent"
# Each tenant stands in both; of a cell of all tenants they say the same.
_SAME = {"all_tenants": "tenants"}

Change = tuple[str, str, str]


def changes(old: Any, new: Any) -> list[Change]:
    """Fields whose values differ: where, what it was, what it is. Tenants go by their names."""
    before, after = dict(_flat(old)), dict(_flat(new))
    paths = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    return [
        (path, _short(before.get(path, _ABSENT)), _short(after.get(path, _ABSENT)))
        for path in paths
    ]


def told(found: Iterable[Iterable[Change]]) -> list[str]:
    """The changes of several cells, each once with the number of cells that it is about."""
    counted = Counter(change for each in found for change in each)
    lines = [
        f"{path}: {before} -> {after}   ({count} cell{'s' * (count != 1)})"
        for (path, before, after), count in counted.most_common()
    ]
    rest = len(lines) - _MOST_CHANGES
    return lines if rest <= 0 else [*lines[:_MOST_CHANGES], f"and {rest} more fields"]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, each in value.items():
            known = _SAME.get(name, name) if not path else name
            yield from _flat(each, f"{path}.{known}" if path else str(known))
    elif isinstance(value, list) and value and all(_is_named(each) for each in value):
        for each in value:
            yield from _flat(each, f"{path}.{each['name']}")
    else:
        yield path, "none" if value is None else str(value)


def _is_named(value: Any) -> bool:
    return isinstance(value, Mapping) and "name" in value


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
