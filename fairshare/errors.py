"""Every error that fairshare raises on purpose.

::

    FairshareError
    ├── SpecError             what the user wrote is wrong (file:line:column)      exit 2
    ├── ResultsError          a result folder cannot be read or written            exit 2
    ├── PreflightError        this machine cannot run what was asked               exit 3
    ├── DeviceBusyError       another run holds the device                         exit 4
    ├── StoppedEarlyError     stopped with results intact (disk, time budget)      exit 5
    ├── InfeasibleError       this cell cannot exist on this device; others can
    ├── PartitionError        the device could not be shared or put back
    └── ServerError           a server did not start, died or answers wrongly
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """What the process tells its caller."""

    OK = 0
    SOME_CELLS_FAILED = 1
    BAD_INPUT = 2
    PREFLIGHT_FAILED = 3
    DEVICE_BUSY = 4
    STOPPED_EARLY = 5
    REGRESSION = 6
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a file that the user wrote; line and column count from 1."""

    path: Path
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        parts = [str(self.path), *(str(n) for n in (self.line, self.column) if n is not None)]
        return ":".join(parts)


class FairshareError(Exception):
    """An error for people: what happened, where, the evidence, and what to do next."""

    exit_code: ExitCode = ExitCode.SOME_CELLS_FAILED

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        where: Location | None = None,
        evidence: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where
        self.evidence = tuple(evidence)

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.message}" if self.where else self.message]
        lines += [f"  | {line}" for line in self.evidence]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class SpecError(FairshareError):
    """The user's YAML, flag or name is wrong."""

    exit_code = ExitCode.BAD_INPUT


class ResultsError(FairshareError):
    """A result folder is missing, damaged, of another format version, or not writable."""

    exit_code = ExitCode.BAD_INPUT


class PreflightError(FairshareError):
    """What was asked cannot run on this machine as it stands."""

    exit_code = ExitCode.PREFLIGHT_FAILED


class DeviceBusyError(FairshareError):
    """Another run holds the device."""

    exit_code = ExitCode.DEVICE_BUSY


class StoppedEarlyError(FairshareError):
    """The run stopped before its end, with what it had already measured intact."""

    exit_code = ExitCode.STOPPED_EARLY


class InfeasibleError(FairshareError):
    """This cell cannot exist (the reason is the message); it is listed, not run."""


class PartitionError(FairshareError):
    """The device could not be shared as planned, or could not be put back as it was found."""


class ServerError(FairshareError):
    """A server did not start, was never ready, died, or was not what it should be."""
