"""NVIDIA's own MPS control program, where `make mps-control` could fetch it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fairshare.sharing.mps_control import CONTROL

FOLDER = Path(__file__).resolve().parents[1] / ".mps-control"


def nvidias_env() -> dict[str, str]:
    """The environment that leads to it; skips the test where it cannot be had."""
    installed = shutil.which(CONTROL)
    fetched = FOLDER / "usr/bin" / CONTROL
    if installed is None and not fetched.exists():
        why_not = FOLDER / "why-not"
        reason = f" ({why_not.read_text().strip()})" if why_not.exists() else ""
        pytest.skip(f"NVIDIA's {CONTROL} is not here; make mps-control fetches it{reason}")
    folder = Path(installed).parent if installed else fetched.parent
    return {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
