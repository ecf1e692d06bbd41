"""Tidy pandas tables: one observation per line, for seaborn and for anybody's notebook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from fairshare.analysis.aggregate import Row
from fairshare.analysis.model import CURVE, CellAnalysis
from fairshare.analysis.table import TOTAL
from fairshare.errors import Location, ResultsError

ESTIMATE_COLUMNS = (
    "scenario", "load_scale", "concurrency", "mode", "tenant", "metric", "value", "low", "high",
)  # fmt: skip
CURVE_COLUMNS = ("cell", "mode", "tenant", "metric", "seconds", "share")


def estimates_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """One line per mode, concurrency, tenant (``all``: the total) and metric.

    ``low`` and ``high`` are the ends of the interval, missing where there is none.
    """
    lines = [
        (
            row.setting.scenario,
            row.setting.load_scale,
            row.setting.concurrency,
            row.mode_label,
            TOTAL if row.tenant is None else row.tenant,
            name,
            estimate.value,
            estimate.interval.low if estimate.interval else float("nan"),
            estimate.interval.high if estimate.interval else float("nan"),
        )
        for row in rows
        for name, estimate in row.estimates.items()
    ]
    return pd.DataFrame(lines, columns=list(ESTIMATE_COLUMNS))


def curves_frame(cells: Sequence[CellAnalysis]) -> pd.DataFrame:
    """Points of the distribution functions of TTFT and E2E, per cell and tenant."""
    frames = [
        pd.DataFrame(
            {
                "cell": cell.result.id,
                "mode": cell.result.mode_label,
                "tenant": row.tenant,
                "metric": name,
                "seconds": curve,
                "share": CURVE,
            }
        )
        for cell in cells
        for row in cell.tenants
        for name, curve in row.curves.items()
    ]
    if not frames:
        return pd.DataFrame(columns=list(CURVE_COLUMNS))
    return pd.concat(frames, ignore_index=True)


def telemetry_frame(path: Path) -> pd.DataFrame | None:
    """``gpu.csv`` or ``host.csv``; None where it is absent or holds no sample.

    Raises:
        ResultsError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        frame = pd.read_csv(path)
        frame["t_s"] = pd.to_numeric(frame["t_s"])
    except (ValueError, KeyError, OSError) as error:
        raise ResultsError(f"damaged: {error}", where=Location(path)) from error
    return frame if len(frame) else None
