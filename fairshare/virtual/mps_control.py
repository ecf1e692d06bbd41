"""Stand-in for ``nvidia-cuda-mps-control``: daemon and client, as observed of NVIDIA's own.

Standard library only. Every command exits 0 whatever it says; only an unreachable daemon is 1. The
simulated GPU's driver version decides what it knows: static SM partitions (``-S``) from R590 on.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairshare.virtual import mps_daemon
from fairshare.virtual.failing import fails
from fairshare.virtual.mps_partitions import Partitions
from fairshare.virtual.mps_protocol import PIPE_ENV, connect, exchange
from fairshare.virtual.state import STATE_ENV, read_state

_HELP = """\
CUDA MPS Control for Linux/Unix.
Copyright (C) 2003 - 2025 NVIDIA Corporation.

  This program allows multiple CUDA processes to share a single GPU context. For information on \
how to use the CUDA MPS, see the nvidia-cuda-mps-control manual page.

"""
_LONGEST_SOCKET_PATH = 107
_NAME = b"nvidia-cuda-mps-control"
_PR_SET_NAME = 15
# Driver branch -> version of the control program, which is CUDA's; the first that is not too new.
_VERSIONS = {615: 13040, 610: 13030, 595: 13020, 590: 13010, 580: 13000}
_STATIC_PARTITIONS = 13010


def main(arguments: list[str]) -> int:
    """Do what the command line says; the exit status is the real program's."""
    pipe_dir = Path(os.environ.get(PIPE_ENV) or "/tmp/nvidia-mps")  # noqa: S108  # CUDA's default
    if not arguments:
        return _command_client(pipe_dir)
    state = _gpu_state()
    version = _version(state)
    flags = set(arguments[1:])
    static = version is not None and version >= _STATIC_PARTITIONS
    if arguments[0] in ("-d", "-f") and flags <= ({"-S"} if static else set()):
        partitions = Partitions(state["uuid"], state["sm_count"]) if flags and state else None
        daemon = mps_daemon.Daemon(pipe_dir, version, background=arguments[0] == "-d")
        daemon.settings.partitions = partitions
        return _start(daemon)
    print(_HELP, end="")
    return 0 if arguments in (["-h"], ["--help"]) else 1


def _gpu_state() -> dict[str, Any] | None:
    """The simulated GPU as its driver knows it; None where there is none."""
    try:
        return dict(read_state(Path(os.environ[STATE_ENV]))["gpu"])
    except (KeyError, OSError, ValueError):
        return None


def _version(gpu: Mapping[str, Any] | None) -> int | None:
    branch = int(gpu["driver_version"].split(".")[0]) if gpu is not None else 580
    return next((number for since, number in _VERSIONS.items() if branch >= since), None)


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


def _start(daemon: mps_daemon.Daemon) -> int:
    pipe_dir = daemon.pipe_dir
    if len(os.fsencode(pipe_dir / "control")) > _LONGEST_SOCKET_PATH or fails("mps_no_start"):
        return 1  # the real one says nothing either
    try:
        pipe_dir.mkdir(exist_ok=True)
        lock = os.open(pipe_dir / "control_lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        print(f"Cannot access {PIPE_ENV}={pipe_dir}")
        return 1
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("An instance of this daemon is already running")
        return 1
    ctypes.CDLL(None).prctl(_PR_SET_NAME, _NAME)  # found by name, as the real one is
    if daemon.background:
        return _detach(daemon)
    daemon.listen()
    return daemon.run()


def _detach(daemon: mps_daemon.Daemon) -> int:
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
    daemon.listen()
    os.write(writer, b"1")
    os.close(writer)
    os.close(reader)
    os._exit(daemon.run())


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # quiet when the reader has enough
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main(sys.argv[1:]))
