"""Fixtures of the chaos tests, and their account at the end of the session."""

from __future__ import annotations

import pytest

from tests.chaos.tally import TALLY
from tests.workplace import cache_dir

__all__ = ["cache_dir"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was killed and how long the clean-up took."""
    if lines := TALLY.lines():
        terminalreporter.section("chaos")
        for line in lines:
            terminalreporter.write_line(line)
