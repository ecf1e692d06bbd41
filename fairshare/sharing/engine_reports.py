"""What an engine said of its share from inside its own process, and whether that was planned.

The reports are written by code of ours that the engine has loaded; see ``docs/verification.md``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fairshare.errors import PartitionError
from fairshare.sharing.plan import ServerView, Slot
from fairshare.units import format_bytes

_HINT = (
    "the server's log says why, in lines that begin with fairshare; the launcher must leave "
    "PYTHONPATH and VLLM_PLUGINS to its servers (no env -i, no python -I or -E)"
)


def engine_reports(slot: Slot, server: ServerView) -> list[dict[str, Any]]:
    """One report of each process of the server that owns a device, or a part of one.

    Raises:
        PartitionError: there is none, so nothing is known of the share.
    """
    folder = server.reports
    paths = [] if folder is None else [folder / f"{pid}.json" for pid in server.pids]
    reports = [report for path in paths if (report := _read(path)) is not None]
    if not reports:
        raise PartitionError(
            f"the engine of server {slot.name} did not report its share: nothing was verified",
            hint=_HINT,
        )
    return reports


def kv_differences(server: ServerView, report: dict[str, Any]) -> list[str]:
    """Whether the engine holds a larger KV cache than it was told to."""
    told, held = server.kv_bytes, report.get("kv_cache_bytes")
    if told is None:
        return []
    if held is None:
        return [f"KV cache: planned {format_bytes(told)}, not told"]
    if held > told:
        return [f"KV cache: planned {format_bytes(told)}, has {format_bytes(held)}"]
    return []


def verify_cpu_engine(slot: Slot, server: ServerView) -> dict[str, Any]:
    """Compare threads and KV cache of an engine on the CPU with its slot; return its report.

    Raises:
        PartitionError: they differ, or there is no report.
    """
    reports = engine_reports(slot, server)
    wrong = [line for report in reports for line in kv_differences(server, report)]
    for report in reports:
        threads = report.get("compute_threads")
        if slot.threads is not None and threads != slot.threads:  # fewer are no share either
            wrong.append(f"compute threads: planned {slot.threads}, has {threads}")
    if wrong:
        raise PartitionError(
            f"the engine of server {slot.name} does not keep to its share",
            evidence=wrong,
            hint="look for what overrides it in the launcher's env and args, such as "
            "VLLM_CPU_KVCACHE_SPACE, or an executor that binds its threads itself",
        )
    return reports[0]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        report: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None
