"""Reading files that other tools wrote: every value is checked, every complaint has its place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from fairshare.errors import Location, ResultsError
from fairshare.records import ErrorKind, Phase, RequestRecord
from fairshare.units import NS_PER_S

_MOST_TOKENS = 10**9
_MOST_SECONDS = 4e9  # nanoseconds of it still fit 62 bits
_PICKLE = b"\x80"
_ABORTED = -1.0


@dataclass(frozen=True, slots=True)
class ForeignRun:
    """One run that somebody else measured, as a file tells it."""

    source: Path
    line: int
    scenario: str
    policy: str | None
    """None where the file says nothing of a scheduler; the engine's own order then."""
    records: list[RequestRecord]
    window_s: tuple[float, float]
    end_s: float
    open_loop: bool
    concurrency: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the file says of itself, for people."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One object of a foreign file. Each getter checks what it gives.

    All raise :class:`ResultsError` with the place where a value is missing or impossible.
    """

    values: Mapping[str, Any]
    where: Location
    what: str = ""
    """Which object of its line it is, if there are several: ``response 17``."""

    def tokens(self, name: str) -> int:
        """A number of tokens."""
        value = self.values.get(name)
        if type(value) is not int or not 0 <= value <= _MOST_TOKENS:
            raise self.complaint(f"{name} is {shown(value)}, not a number of tokens")
        return value

    def whole(self, name: str) -> int:
        """A whole number from 1."""
        value = self.values.get(name)
        if type(value) is not int or not 1 <= value <= _MOST_TOKENS:
            raise self.complaint(f"{name} is {shown(value)}, not a whole number from 1")
        return value

    def seconds(self, name: str) -> float:
        """Seconds, 0 or more."""
        return self.checked_seconds(name, self.values.get(name))

    def checked_seconds(self, name: str, value: Any) -> float:
        """``value`` as seconds, 0 or more."""
        if not is_number(value) or not 0 <= value <= _MOST_SECONDS:
            raise self.complaint(f"{name} is {shown(value)}, not a number of seconds")
        return float(value)

    def latency(self, name: str) -> float | None:
        """Seconds; None of a request that was aborted (-1, or nothing at all)."""
        value = self.values.get(name)
        return None if value is None or value == _ABORTED else self.seconds(name)

    def text(self, name: str) -> str:
        """A text that is not empty; a number counts as its digits."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise self.complaint(f"{name} is {shown(value)}, not a text")
        return str(value)

    def list_of(self, name: str) -> list[Any]:
        """A list."""
        value = self.values.get(name)
        if not isinstance(value, list):
            raise self.complaint(f"{name} is {shown(value)}, not a list")
        return value

    def complaint(self, problem: str) -> ResultsError:
        """What is wrong with this object, and where."""
        return ResultsError(f"{self.what}: {problem}" if self.what else problem, where=self.where)


@dataclass(frozen=True, slots=True)
class Timing:
    """When what happened to one request, in seconds since the run's start; None: never."""

    intended_s: float
    sent_s: float
    first_token_s: float | None
    end_s: float


def answered(number: int, tenant: str, timing: Timing, prompt: int, output: int) -> RequestRecord:
    """A request that was answered; when its chunks came between first token and end is unknown."""
    record = _record(number, tenant, timing)
    record.prompt_tokens, record.output_tokens, record.finish_reason = prompt, output, "length"
    return record


def failed(number: int, tenant: str, timing: Timing, kind: ErrorKind, text: str) -> RequestRecord:
    """A request that was not answered."""
    record = _record(number, tenant, timing)
    record.error, record.error_text = kind, text
    return record


def _record(number: int, tenant: str, timing: Timing) -> RequestRecord:
    first = timing.first_token_s
    return RequestRecord(
        id=str(number),
        tenant=tenant,
        server="imported",
        phase=Phase.MEASURE,
        intended_ns=to_ns(timing.intended_s),
        sent_ns=to_ns(timing.sent_s),
        first_token_ns=None if first is None else to_ns(first),
        end_ns=to_ns(timing.end_s),
    )


def to_ns(seconds: float) -> int:
    """Seconds as whole nanoseconds."""
    return round(seconds * NS_PER_S)


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def shown(value: Any) -> str:
    """A value as a complaint shows it."""
    return "missing" if value is None else repr(value)[:60]


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers.

    Raises:
        ResultsError: it cannot be read, or is a pickle: loading one runs code, so it never is.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1 and line.startswith(_PICKLE):
                    raise ResultsError(
                        "this is a pickle, and loading one can run any code",
                        where=Location(path),
                        hint="import the JSON results of the same run",
                    )
                if line.strip():
                    yield number, line
    except OSError as error:
        raise ResultsError(
            f"cannot be read: {error.strerror or error}", where=Location(path)
        ) from None


def json_object(line: bytes, path: Path, number: int) -> dict[str, Any]:
    """The JSON object that a line is.

    Raises:
        ResultsError: it is something else.
    """
    try:
        loaded = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ResultsError(
            f"not valid JSON: {error.msg}", where=Location(path, number, error.colno)
        ) from None
    if not isinstance(loaded, dict):
        raise ResultsError("not a JSON object", where=Location(path, number))
    return loaded
