"""The doctor's findings, for people: what stops a run first, each with what mends it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from fairshare.doctor.finding import Finding, Level, worst

_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}
_VERDICTS = {
    Level.OK: "ready",
    Level.WARN: "ready, with reservations",
    Level.FAIL: "not ready: such a run is refused, or would not measure what it says",
}


def show_findings(findings: Sequence[Finding]) -> None:
    """Print one line per finding, the worst first, and below it the command that mends it."""
    width = max((len(finding.name) for finding in findings), default=0)
    for level in reversed(Level):
        for finding in findings:
            if finding.level is level:
                mark = click.style(f"{level.value:<5}", fg=_COLOURS[level], bold=True)
                click.echo(f"{mark}{finding.name:<{width}}  {finding.says}")
                if finding.fix:
                    click.echo(f"{'':5}{'':{width}}  -> {finding.fix}")
    counts = [
        f"{sum(finding.level is level for finding in findings)} {level.value}"
        for level in reversed(Level)
    ]
    click.echo(f"{', '.join(counts)}: {_VERDICTS[worst(findings)]}")
