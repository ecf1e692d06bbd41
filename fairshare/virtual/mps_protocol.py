"""What a simulated MPS client and the stand-in control daemon say to each other.

One line of JSON each way over the UNIX socket ``control`` in the pipe directory. Our own protocol;
what imitates NVIDIA is the command line (``mps_control``) and the meaning of the limits.
Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIPE_ENV = "CUDA_MPS_PIPE_DIRECTORY"
PERCENTAGE_ENV = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
MEMORY_ENV = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"
PARTITION_ENV = "CUDA_MPS_SM_PARTITION"
_MIB = 1024**2
_TIMEOUT_S = 5.0


class RefusedError(Exception):
    """The daemon does not take the client; CUDA then fails to initialise."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings of one client; None means no limit."""

    thread_percentage: float | None = None
    memory_bytes: int | None = None

    def tightened(self, other: Limits) -> Limits:
        """The tighter of both, limit by limit: limits only ever tighten."""
        return Limits(
            _least(self.thread_percentage, other.thread_percentage),
            _least(self.memory_bytes, other.memory_bytes),
        )


def parse_percentage(text: str) -> float | None:
    """A thread percentage in (0, 100]; None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value <= 100 else None


def parse_memory(text: str) -> int | None:
    """Bytes of ``2G``, ``512M`` or ``512MB`` as the real daemon reads them.

    It reads a whole number and takes the next letter for the unit: anything but G means M, so
    ``1.5G`` is 1 MiB.
    """
    match = re.match(r"\s*(\d+)(.?)", text)
    if match is None:
        return None
    return int(match[1]) * _MIB * (1024 if match[2] in ("G", "g") else 1)


def format_memory(count: int) -> str:
    """Bytes as the daemon shows them: ``512M``, and from one GiB on whole ones, rounded down."""
    mib = count // _MIB
    return f"{mib // 1024}G" if mib >= 1024 else f"{mib}M"


def client_limits(env: Mapping[str, str], uuids: Collection[str]) -> Limits:
    """The limits that a client's environment asks for.

    A memory limit for a device that the client cannot see drops all memory limits, as it does on
    real hardware.
    """
    memory: int | None = None
    for entry in filter(None, env.get(MEMORY_ENV, "").split(",")):
        device, _, value = entry.partition("=")
        if device.strip() != "0" and device.strip() not in uuids:
            memory = None
            break
        memory = parse_memory(value)
    return Limits(parse_percentage(env.get(PERCENTAGE_ENV, "")), memory)


def join_as_client(
    pipe_dir: Path, pid: int, wanted: Limits, partition: str | None = None
) -> tuple[socket.socket, Limits] | None:
    """Register with the daemon behind ``pipe_dir``; None if no daemon answers.

    The connection must stay open: the daemon forgets the client when it closes.

    Raises:
        RefusedError: the daemon does not take this client.
    """
    connection = connect(pipe_dir)
    if connection is None:
        return None
    request = {
        "client": pid,
        "percentage": wanted.thread_percentage,
        "memory": wanted.memory_bytes,
        "partition": partition,
    }
    reply = exchange(connection, request)
    if reply is None:
        connection.close()
        return None
    if "refused" in reply:
        connection.close()
        raise RefusedError(reply["refused"])
    return connection, Limits(reply["percentage"], reply["memory"])


def connect(pipe_dir: Path) -> socket.socket | None:
    """A connection to the daemon's control socket, or None if nobody listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(_TIMEOUT_S)
    try:
        connection.connect(os.fspath(pipe_dir / "control"))
    except OSError:
        connection.close()
        return None
    return connection


def exchange(connection: socket.socket, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """Send one request and wait for its answer; None if the other side is not ours or gone."""
    try:
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as stream:
            line = stream.readline()
        reply = json.loads(line)
    except (OSError, ValueError):
        return None
    return reply if isinstance(reply, dict) else None


def _least(a: float | None, b: float | None) -> Any:
    return b if a is None else a if b is None else min(a, b)
