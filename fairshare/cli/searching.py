"""Sweeps that look for an answer: ``--find-knee`` and ``--share-sweep``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

# Flag of each search -> the flags that say how, with the field that each one sets.
_KINDS = {
    "find_knee": ("knee", {"attainment": "attainment", "resolution": "resolution"}),
    "share_sweep": ("shares", {"share_step": "step"}),
}


def search_flags(command: Any) -> Any:
    """What to look for in place of measuring a grid."""
    for option in reversed(
        [
            click.option(
                "--find-knee",
                is_flag=True,
                help="Per mode, find the highest load at which every tenant's SLO is met.",
            ),
            click.option(
                "--attainment",
                type=click.FloatRange(0.01, 0.999),
                help="Share of requests that must be within the SLO (default: 0.9).",
            ),
            click.option(
                "--resolution",
                type=click.FloatRange(0.01, 1),
                help="How near the knee is enclosed (default: 0.1, a tenth).",
            ),
            click.option(
                "--share-sweep",
                is_flag=True,
                help="Try every split of the device between the tenants, and say which is best.",
            ),
            click.option(
                "--share-step",
                type=click.IntRange(1, 50),
                help="Shares are multiples of so many percent (default: 10).",
            ),
        ]
    ):
        command = option(command)
    return command


def search_of(given: Mapping[str, Any], base: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The search that the flags ask for, over the one in the sweep's file; None: no change."""
    asked = [name for name in _KINDS if given.get(name)]
    if len(asked) > 1:
        raise click.UsageError("--find-knee and --share-sweep are two sweeps: take one at a time")
    found = dict(base or {})
    if asked:
        kind, _ = _KINDS[asked[0]]
        found = found if found.get("kind") == kind else {"kind": kind}
    said: dict[str, Any] = {}
    for name, (kind, fields) in _KINDS.items():
        for flag, field in fields.items():
            if given.get(flag) is None:
                continue
            if found.get("kind") != kind:
                wanted, needed = (each.replace("_", "-") for each in (flag, name))
                raise click.UsageError(f"--{wanted} goes with --{needed}")
            said[field] = given[flag]
    return {**found, **said} if asked or said else None
