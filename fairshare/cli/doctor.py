"""doctor: whether this machine is ready, and what to type where it is not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from fairshare.cli.options import MODES, device_flags
from fairshare.cli.wishes import flags_of, matrix_of
from fairshare.errors import ExitCode
from fairshare.records import Mode

FORMAT_VERSION = 1


@click.command("doctor")
@click.option("--modes", type=MODES, help="Check for these modes only (default: all).")
@device_flags
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=Path("results"),
    help="Where results would go.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def doctor_command(modes: list[str] | None, output_dir: Path, as_json: bool, **given: Any) -> None:
    """Check what a run needs; exit code 3 if it would be refused.

    The flags are those of matrix and run: what a run with them does not need is not checked.
    Nothing is changed.
    """
    from fairshare.doctor.examine import examine
    from fairshare.doctor.finding import worst
    from fairshare.runner.preflight import intent_of_flags
    from fairshare.ui.findings import show_findings

    # As for a sweep in these modes; its scenario is never looked for.
    nothing = {"engine_args": (), "policy_options": (), "scenarios": ("doctor",)}
    modes = modes or [mode.value for mode in Mode]
    asked = {**given, **nothing, "matrix_name": None, "modes": modes}
    intent, reason = intent_of_flags(matrix_of(asked), flags_of(asked), output_dir)
    findings = examine(intent)
    if as_json:
        _print_json(reason, findings)
    else:
        click.echo(reason)
        show_findings(findings)
    if worst(findings).value == "fail":
        sys.exit(ExitCode.PREFLIGHT_FAILED)


def _print_json(reason: str, findings: list[Any]) -> None:
    import orjson

    from fairshare.doctor.finding import worst

    document = {
        "format_version": FORMAT_VERSION,
        "device": reason,
        "level": worst(findings),
        "findings": findings,  # dataclasses: name, level, says, fix
    }
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
