"""The accounts of several load processes as one: the worst of each counts, and each is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairshare.load.load import DriveReport

_LAGS = ("loop_lag_ms", "schedule_lag_ms")
_FRACTIONS = ("cpu_fraction", "cpu_wait_fraction")


def merged(reports: Sequence[DriveReport]) -> DriveReport:
    """One report: what all of them measured, and the worst that any says of itself.

    Percentiles of lags are not merged, which cannot be done: those of the worst process stand for
    all, and ``processes`` has everybody's.
    """
    clients = [report.client for report in reports]
    if len(reports) == 1:
        return reports[0]
    return DriveReport(
        window_ns=(
            max(report.window_ns[0] for report in reports),
            min(report.window_ns[1] for report in reports),
        ),
        end_ns=max(report.end_ns for report in reports),
        stopped=any(report.stopped for report in reports),
        client={
            **_union(clients),
            **{name: _worst([client[name] for client in clients]) for name in _LAGS},
            **{name: max((c[name] or 0.0) for c in clients) for name in _FRACTIONS},
            "client_limited": any(client["client_limited"] for client in clients),
            "reasons": [
                f"process {number}: {reason}"
                for number, client in enumerate(clients)
                for reason in client["reasons"]
            ],
            "processes": clients,
        },
    )


def _union(clients: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is told by tenant, of which each belongs to one process."""
    names = [
        name for name, value in clients[0].items() if isinstance(value, dict) and name not in _LAGS
    ]
    return {
        name: {tenant: each for client in clients for tenant, each in client[name].items()}
        for name in names
    }


def _worst(lags: Sequence[Mapping[str, float | None]]) -> Mapping[str, float | None]:
    return max(lags, key=lambda lag: lag["p99"] or 0.0)
