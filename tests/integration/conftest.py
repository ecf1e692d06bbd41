"""Fixtures of all integration tests."""

from tests.workplace import cache_dir, wait_for, workplace

__all__ = ["cache_dir", "wait_for", "workplace"]
