"""What the stand-in MPS daemon answers to each command. Pure but for the settings it changes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from fairshare.virtual.mps_protocol import (
    PERCENTAGE_ENV,
    Limits,
    format_memory,
    parse_memory,
    parse_percentage,
)
from fairshare.virtual.state import failures


@dataclass(slots=True)
class Settings:
    """Defaults for clients that connect from now on; memory limits by device ordinal."""

    thread_percentage: float = 100.0
    memory_limits: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_environment(cls) -> Settings:
        """The daemon's own environment may lower the percentage; a wrong value is ignored."""
        return cls(parse_percentage(os.environ.get(PERCENTAGE_ENV, "")) or 100.0)

    def limits(self) -> Limits:
        """What a client of device 0 may have at most."""
        return Limits(self.thread_percentage, self.memory_limits.get("0"))


def answer(
    words: Sequence[str], settings: Settings, server_pid: int | None, clients: Sequence[int]
) -> str:
    """The text printed for a command, with its newlines."""
    name, arguments = words[0], words[1:]
    if name == "get_server_list":
        return f"{server_pid}\n" if server_pid is not None else ""
    if name in ("get_default_active_thread_percentage", "set_default_active_thread_percentage"):
        return _percentage(name, arguments, settings)
    if name in ("get_default_device_pinned_mem_limit", "set_default_device_pinned_mem_limit"):
        return _memory(name, arguments, settings)
    if name in ("get_client_list", "get_server_status"):
        return _of_server(name, arguments, server_pid, clients)
    return f'Unknown command "{name}"\n'


def _percentage(name: str, arguments: Sequence[str], settings: Settings) -> str:
    if name.startswith("set_") and "mps_ignores_percentage" not in failures():
        # A wrong value changes nothing; the error goes to the real one's log alone.
        value = parse_percentage(arguments[0]) if arguments else None
        settings.thread_percentage = value or settings.thread_percentage
    return f"{settings.thread_percentage:.1f}\n"


def _memory(name: str, arguments: Sequence[str], settings: Settings) -> str:
    if name.startswith("set_"):
        value = parse_memory(arguments[1]) if len(arguments) == 2 else None
        if value is not None:
            settings.memory_limits[arguments[0]] = value
        return ""
    limit = settings.memory_limits.get(arguments[0]) if arguments else None
    return f"{format_memory(limit)}\n" if limit is not None else ""


def _of_server(
    name: str, arguments: Sequence[str], server_pid: int | None, clients: Sequence[int]
) -> str:
    if not arguments:
        return "A server PID is required\n"
    if server_pid is None or arguments[0] != str(server_pid):
        return f"Server {arguments[0]} not found\n"
    if name == "get_server_status":
        return "ACTIVE\n"
    return "".join(f"{pid}\n" for pid in clients)
