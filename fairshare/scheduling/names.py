"""Names that clients make up, told apart as far as memory is to be spent on them."""

from __future__ import annotations

from collections.abc import Iterable

OTHERS = "others"
"""What all names beyond the number that is told apart are together."""


class Names:
    """Tells the names that were known from the start, and so many more, apart."""

    def __init__(self, most: int, known: Iterable[str] = ()) -> None:
        self._names = {*known, OTHERS}
        self._most = most + len(self._names)

    def told_apart(self, name: str) -> str:
        """The name itself, or ``OTHERS`` where there were too many before it."""
        if name not in self._names:
            if len(self._names) >= self._most:
                return OTHERS
            self._names.add(name)
        return name
