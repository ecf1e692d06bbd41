"""What lives on a node in a process of Ray's: it starts our process there and passes on its words.

It looks at nothing that it passes on. The work is done in a process of its own for three reasons:
what Ray sets and logs for its processes stays out of it, its end leaves our reaper to clean up, and
Ray's threads are not among those that send the requests.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from fairshare import __version__
from fairshare.processes.labelled import environment_of

_PACKAGE_PARENT = Path(__file__).resolve().parents[2]
_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Greeting:
    """Who an agent is: the node's host, our version there, and the GPU that Ray gave it, if any."""

    host: str
    version: str
    gpu: str | None


class Agent:
    """One per device of a node. Ray calls its methods, several at a time, in threads."""

    def __init__(self) -> None:
        self._line: Connection | None = None

    def greet(self, gpus: list[str] | None = None) -> Greeting:
        """Tell who is here."""
        import ray  # noqa: PLC0415 - the rest of this class needs no Ray, and is tested without

        given = [str(each) for each in ray.get_gpu_ids()] if gpus is None else gpus
        return Greeting(os.uname().nodename, __version__, given[0] if given else None)

    def run(self, job: bytes) -> Iterator[bytes]:
        """Have a job done; what our process says, message by message, and last why it failed.

        The last is text if our process ended otherwise than it should.
        """
        ours, theirs = Pipe()
        with tempfile.TemporaryFile() as errors, ours:
            command = [sys.executable, "-Pm", "fairshare.cluster.node", str(theirs.fileno())]
            with theirs:
                process = subprocess.Popen(
                    command,
                    env=_environment(),
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            self._line = ours
            try:
                ours.send_bytes(job)
                while True:
                    yield ours.recv_bytes()
            except (EOFError, ConnectionError):
                pass
            finally:
                if self._line is ours:  # the next job may have begun
                    self._line = None
                ours.close()  # should nobody listen any more, it stops
                code = process.wait()
            if code:
                errors.seek(max(0, errors.seek(0, os.SEEK_END) - _TAIL_BYTES))
                raise RuntimeError(f"exit code {code}: {errors.read().decode(errors='replace')}")

    def say(self, what: bytes) -> None:
        """Say something to our process, if one is at work."""
        line = self._line
        if line is not None:
            with contextlib.suppress(OSError):  # it has just ended
                line.send_bytes(what)


def _environment() -> dict[str, str]:
    """The environment in which the node was started: Ray sets threads and GPUs for its processes.

    An agent's parent is the node's own process.
    """
    found = environment_of(os.getppid()) or dict(os.environ)
    kept = {name: value for name, value in found.items() if not name.startswith("RAY_")}
    paths = [str(_PACKAGE_PARENT), *kept.get("PYTHONPATH", "").split(os.pathsep)]
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
