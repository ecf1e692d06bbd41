"""The names of all files of a result folder, in one place."""

from __future__ import annotations

import hashlib
import re

MATRIX = "matrix.json"
EVENTS = "events.jsonl"
CELLS = "cells"
SUPERSEDED = "superseded"  # cells that were measured anew, as they were

CELL = "cell.json"
CONFIG = "config.resolved.yaml"
REQUESTS = "requests.jsonl"
GPU = "gpu.csv"
HOST = "host.csv"
SERVER_METRICS = "server_metrics.jsonl"
SERVERS = "servers"
SCHEDULING = "scheduling.jsonl"

PARTIAL = ".partial"  # a cell that is still running, or was killed
REPLACED = ".replaced"  # a complete cell, for the moment in which a newer one takes its place

ANALYSIS = "analysis"
SUMMARY_CSV = "summary.csv"
SUMMARY_JSON = "summary.json"
KNEE_CSV = "knee.csv"
KNEE_JSON = "knee.json"
SHARES_CSV = "shares.csv"
SHARES_JSON = "shares.json"
FIGURES = "figures"
REPORT = "report.html"
REPORT_MARKDOWN = "report.md"
ARTICLE = "article"
CELL_PAGE = "cell.html"

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")


def cell_folder(cell_id: str) -> str:
    """The folder name of a cell: its id, unless the id could mean another place or a marker.

    An id with separators, dots in front, control characters, one of our suffixes or too great a
    length becomes a cleaned prefix and twelve digits of its SHA-256: one folder per id, always
    directly below ``cells/``.
    """
    if _SAFE.fullmatch(cell_id) and not cell_id.endswith((PARTIAL, REPLACED)):
        return cell_id
    digest = hashlib.sha256(cell_id.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    cleaned = re.sub(r"[^A-Za-z0-9_-]+", "-", cell_id).strip("-_")[:80]
    return f"{cleaned or 'cell'}-{digest}"
