"""``fairshare predict``: what a matrix would show, by the model of the hardware, in seconds."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from fairshare.cli.sweeps import OUTPUT_DIR, flags_of, matrix_of, sweep_flags
from fairshare.errors import ExitCode


@click.command("predict")
@sweep_flags
@OUTPUT_DIR
@click.option("--no-report", is_flag=True, help="Leave out figures and page; build them later.")
def predict_command(output_dir: Path | None, no_report: bool, **given: Any) -> None:
    """Predict every SCENARIO in every mode on a simulated GPU, without starting a server.

    The figures come from a model of the hardware (docs/predict.md says how good it is) and are
    marked as simulated. Ask "what if" by changing a flag: another --device virtual:NAME, another
    --mig-layout, more tenants, another policy.
    """
    from fairshare.analysis import build
    from fairshare.records import CellStatus
    from fairshare.runner.plan import make_plan
    from fairshare.runner.predict import predict, require_simulated
    from fairshare.runner.rerun import request_of
    from fairshare.runner.session import default_output_dir
    from fairshare.runner.settings import settle
    from fairshare.ui.outcome import show_analysis

    matrix, flags = matrix_of(given), flags_of(given)
    if flags.device is None and matrix.device is None:
        flags = replace(flags, device="virtual")
    settings = settle(matrix, flags)
    require_simulated(settings)
    click.echo(f"device: {settings.device_reason}; in virtual time")
    directory = output_dir or default_output_dir(f"predicted-{matrix.name}")
    before_s = time.monotonic()
    outcome = predict(settings, make_plan(settings), directory, request=request_of(matrix, flags))
    took_s = time.monotonic() - before_s
    show_analysis(build(directory, figures=not no_report, html=not no_report))
    click.echo(f"{outcome.count(CellStatus.OK)} cells predicted in {took_s:.1f} s; in {directory}")
    failed = outcome.count(CellStatus.FAILED) or not outcome.count(CellStatus.OK)
    sys.exit(ExitCode.SOME_CELLS_FAILED if failed else ExitCode.OK)
