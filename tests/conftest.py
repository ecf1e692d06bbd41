"""What all test processes tell together at the end: the account of the chaos tests."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.tally import TALLY


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several test processes hands over what it has killed."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["kills"] = [tuple(kill) for kill in TALLY.kills]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take it over."""
    for kill in getattr(node, "workeroutput", {}).get("kills", ()):
        TALLY.add(*kill)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was killed and how long the clean-up took."""
    if lines := TALLY.lines():
        terminalreporter.section("chaos")
        for line in lines:
            terminalreporter.write_line(line)
