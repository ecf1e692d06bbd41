"""What the stand-in MPS daemon answers to each command. Pure but for the settings it changes.

The words are NVIDIA's, as seen of control programs of the drivers 535 and 555; what these cannot
show without a GPU is from NVIDIA's documentation.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fairshare.virtual.failing import fails
from fairshare.virtual.mps_partitions import Partitions
from fairshare.virtual.mps_protocol import (
    PERCENTAGE_ENV,
    Limits,
    format_memory,
    parse_memory,
    parse_percentage,
)


@dataclass(slots=True)
class Settings:
    """Defaults for clients that connect from now on; memory limits by device ordinal.

    ``partitions`` is None unless the daemon was started for static partitions (``-S``).
    """

    thread_percentage: float = 100.0
    memory_limits: dict[str, int] = field(default_factory=dict)
    partitions: Partitions | None = None

    @classmethod
    def from_environment(cls) -> Settings:
        """The daemon's own environment may lower the percentage; a wrong value is ignored."""
        return cls(parse_percentage(os.environ.get(PERCENTAGE_ENV, "")) or 100.0)

    def limits(self) -> Limits:
        """What a client of device 0 may have at most."""
        return Limits(self.thread_percentage, self.memory_limits.get("0"))


@dataclass(frozen=True, slots=True)
class ServerState:
    """The daemon's one server: its clients' pids, each with the partition it named, if any."""

    pid: int
    clients: Mapping[int, str | None] = field(default_factory=dict)
    fault: bool = False


def answer(words: Sequence[str], settings: Settings, server: ServerState | None) -> str:
    """The text printed for a command, with its newlines."""
    name, arguments = words[0], words[1:]
    if name in _SETTINGS:
        return _SETTINGS[name](name, arguments, settings)
    if name in _OF_SERVER:
        return _of_server(name, arguments, settings, server)
    if name in ("sm_partition", "lspart") and settings.partitions is not None:
        return _partitions(name, arguments, settings.partitions, server)
    said = {
        "get_server_list": f"{server.pid}\n" if server is not None else "",
        "ps": "Server not found\n" if server is None else "",
        "start_server": "" if arguments[:1] == ["-uid"] else _NO_UID,
    }
    return said.get(name, f'Unknown command "{name}"\n')


_NO_UID = "A user id (UID) is required to start a new server\n"
_OF_SERVER = (
    "get_client_list",
    "get_server_status",
    "get_active_thread_percentage",
    "terminate_client",
)


def _percentage(name: str, arguments: Sequence[str], settings: Settings) -> str:
    if name.startswith("set_") and not fails("mps_ignores_percentage"):
        # A wrong value changes nothing; the error goes to the real one's log alone.
        value = parse_percentage(arguments[0]) if arguments else None
        settings.thread_percentage = value or settings.thread_percentage
    return f"{settings.thread_percentage:.1f}\n"


def _memory(name: str, arguments: Sequence[str], settings: Settings) -> str:
    device = arguments[0] if arguments else "0"
    if name.startswith("set_"):
        value = parse_memory(arguments[1]) if len(arguments) == 2 else None
        if value is not None and not fails("mps_ignores_memory_limit"):
            settings.memory_limits[device] = value
        return ""
    limit = settings.memory_limits.get(device)
    return f"{format_memory(limit)}\n" if limit is not None else ""


def _priority(name: str, arguments: Sequence[str], _settings: Settings) -> str:
    if name.startswith("get_"):
        return "0\n"
    return "" if arguments[:1] in (["0"], ["1"]) else "Invalid priority value - must be 0 or 1!\n"


_SETTINGS: dict[str, Callable[[str, Sequence[str], Settings], str]] = {
    f"{verb}_{noun}": about
    for verb in ("get", "set")
    for noun, about in {
        "default_active_thread_percentage": _percentage,
        "default_device_pinned_mem_limit": _memory,
        "default_client_priority": _priority,
    }.items()
}


def _of_server(
    name: str, arguments: Sequence[str], settings: Settings, server: ServerState | None
) -> str:
    if name == "get_server_status" and not arguments:
        return "A server PID is required\n"
    asked = arguments[0] if arguments else "0"
    if server is None or asked != str(server.pid):
        missing = f"Server {asked} not found\n"
        return f"{missing}Server {asked} not found!\n1\n" if name == "terminate_client" else missing
    if name == "get_server_status":
        return "FAULT\n" if server.fault else "ACTIVE\n"
    if name == "get_active_thread_percentage":
        return f"{settings.thread_percentage:.1f}\n"
    if name == "terminate_client":
        return "0\n" if arguments[1:] and arguments[1] in map(str, server.clients) else "1\n"
    return "".join(f"{pid}\n" for pid in server.clients)


def _partitions(
    name: str, arguments: Sequence[str], partitions: Partitions, server: ServerState | None
) -> str:
    if name == "sm_partition":
        return partitions.command(arguments)
    named = [each or "" for each in server.clients.values()] if server is not None else []
    return partitions.table(Counter(each.partition("/")[2] for each in named))
