"""Fixtures of all integration tests."""

from pathlib import Path

import pytest
from processes_children import Ready

from fairshare.virtual.driver import install
from tests.workplace import cache_dir, own_state_dir, wait_for, workplace

__all__ = ["cache_dir", "own_state_dir", "wait_for", "workplace"]


@pytest.fixture
def driver_env(tmp_path: Path) -> dict[str, str]:
    """A fresh simulated A100-40."""
    return install(tmp_path / "gpu", "a100-40")


@pytest.fixture
def ready(tmp_path: Path) -> Ready:
    """How children say that they are ready."""
    return Ready(tmp_path)
