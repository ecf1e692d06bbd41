"""A command of the user's that is run when a sweep is over, however it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from fairshare.processes.labelled import LABELS
from fairshare.units import format_duration

_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Hook:
    """The words of the command, and how long it may take."""

    words: tuple[str, ...]
    timeout_s: float

    def run(self, variables: Mapping[str, str]) -> str | None:
        """Run it with these variables beside our own; what went wrong, None if nothing did.

        Without a shell and without standard input. It is a session of its own, so that what it
        starts ends with it when its time is up or the user stops it.
        """
        env = {name: value for name, value in os.environ.items() if name not in LABELS}
        try:
            process = subprocess.Popen(
                self.words,
                env={**env, **variables},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            return f"cannot be started: {error.strerror or error}"
        try:
            code = process.wait(self.timeout_s)
        except subprocess.TimeoutExpired:
            _end(process)
            return f"was ended: it took longer than {format_duration(self.timeout_s)}"
        except KeyboardInterrupt:
            _end(process)
            return "was ended by Ctrl-C"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}" if code else None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it with everything that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
