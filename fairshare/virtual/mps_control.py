"""Stand-in for ``nvidia-cuda-mps-control``: daemon and client, as observed on driver 555.

Standard library only. Every command exits 0 whatever it says; only an unreachable daemon is 1.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from pathlib import Path

from fairshare.virtual import mps_daemon
from fairshare.virtual.mps_protocol import PIPE_ENV, connect, exchange
from fairshare.virtual.state import failures

_HELP = """\
usage: nvidia-cuda-mps-control [-d | -f]
  -d    start the control daemon in the background
  -f    start the control daemon in the foreground
Without an option, read commands from standard input.
"""
_LONGEST_SOCKET_PATH = 107


def main(arguments: list[str]) -> int:
    """Do what the command line says; the exit status is the real program's."""
    pipe_dir = Path(os.environ.get(PIPE_ENV) or "/tmp/nvidia-mps")  # noqa: S108  # CUDA's default
    if not arguments:
        return _command_client(pipe_dir)
    if arguments in (["-d"], ["-f"]):
        return _start(pipe_dir, background=arguments == ["-d"])
    print(_HELP, end="")
    return 0 if arguments == ["--help"] else 1


def _command_client(pipe_dir: Path) -> int:
    for line in sys.stdin:
        command = line.strip()
        if not command:
            continue
        connection = connect(pipe_dir)
        reply = None
        if connection is not None:
            # A plain quit waits for the clients to leave, however long that takes.
            connection.settimeout(None)
            reply = exchange(connection, {"command": command})
            connection.close()
        if reply is None:
            print("Cannot find MPS control daemon process", file=sys.stderr)
            return 1
        print(reply["output"], end="")
        if command.split()[0] == "quit":
            return int(reply["status"])
    return 0


def _start(pipe_dir: Path, *, background: bool) -> int:
    if (
        len(os.fsencode(pipe_dir / "control")) > _LONGEST_SOCKET_PATH
        or "mps_no_start" in failures()
    ):
        return 1  # the real one says nothing either
    try:
        pipe_dir.mkdir(exist_ok=True)
        lock = os.open(pipe_dir / "control_lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        print(f"Cannot access {PIPE_ENV}={pipe_dir}")
        return 1
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("An instance of this daemon is already running")
        return 1
    if background:
        return _detach(pipe_dir)
    daemon = mps_daemon.Daemon(pipe_dir)
    daemon.listen()
    return daemon.run()


def _detach(pipe_dir: Path) -> int:
    """Start the daemon in its own session; return when it listens. It keeps the lock."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        ready = os.read(reader, 1)
        return 0 if ready else 1
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    daemon = mps_daemon.Daemon(pipe_dir)
    daemon.listen()
    os.write(writer, b"1")
    os.close(writer)
    os.close(reader)
    os._exit(daemon.run())


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # quiet when the reader has enough
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main(sys.argv[1:]))
