"""Fixtures of the chaos tests."""

from tests.workplace import cache_dir

__all__ = ["cache_dir"]
