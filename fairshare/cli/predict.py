"""``predict`` and ``calibrate``: what the hardware model says, and fitting it to a device."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fairshare.cli.options import TEXT
from fairshare.cli.results import FOLDER
from fairshare.cli.searching import search_flags
from fairshare.cli.sweeps import OUTPUT_DIR, sweep_flags
from fairshare.cli.wishes import flags_of, matrix_of
from fairshare.errors import ExitCode

if TYPE_CHECKING:
    from fairshare.spec.scenario import Scenario

_FOLDER = click.Path(path_type=Path, file_okay=False)


class Parts(click.ParamType[list[float]]):
    """Numbers with colons between them."""

    name = "parts"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[float]:
        """The numbers, all above zero."""
        try:
            parts = [float(part) for part in str(value).split(":")]
        except ValueError:
            parts = []
        if len(parts) < 2 or not all(0 < part < math.inf for part in parts):
            self.fail(f"{value!r} is not like 3:1", param, ctx)
        return parts


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be different from the scenarios' files."""

    times: int | None
    split: list[float] | None

    def of(self, names: Sequence[str]) -> list[tuple[Scenario, Path]] | None:
        """The scenarios as asked for; None: as their files have them."""
        from fairshare.runner.what_if import multiplied, split
        from fairshare.spec.loading import load_scenario

        if not self.times and not self.split:
            return None
        changed = []
        for scenario, path in map(load_scenario, names):
            more = multiplied(scenario, self.times) if self.times else scenario
            changed.append((split(more, self.split) if self.split else more, path))
        return changed


@click.command("predict")
@sweep_flags
@search_flags
@OUTPUT_DIR
@click.option("--no-report", is_flag=True, help="Leave out figures and page; build them later.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Constants that `fairshare calibrate` found: its file, or the folder it was run on.",
)
@click.option(
    "--times",
    type=click.IntRange(min=1),
    metavar="N",
    help="What if every tenant were there N times? Their shares are divided.",
)
@click.option(
    "--split",
    type=Parts(),
    metavar="A:B:...",
    help="What if mps and mig gave the tenants, in order, such parts of the device?",
)
@click.option(
    "--against",
    type=_FOLDER,
    metavar="DIR",
    help="Predict the cells of this result folder instead, and show both with the errors.",
)
def predict_command(
    output_dir: Path | None,
    no_report: bool,
    calibration: Path | None,
    against: Path | None,
    *,
    times: int | None,
    split: list[float] | None,
    **given: Any,
) -> None:
    """Predict every SCENARIO in every mode on a simulated GPU, without starting a server.

    The figures come from a model of the hardware (docs/predict.md says how good it is) and are
    marked as simulated. Ask "what if" by changing a flag: another --device virtual:NAME, another
    --split or --mig-layout, --times more tenants, --load-scale, another policy.
    """
    from fairshare.runner.calibration import calibrated
    from fairshare.virtual.physics import PUBLISHED

    constants = PUBLISHED if calibration is None else calibrated(calibration)
    if against is not None:
        if times or split:
            raise click.UsageError("--against takes the tenants and their parts from DIR")
        _against(against, output_dir, constants, given)
        return
    _predict(output_dir, constants, given, Asked(times, split), report=not no_report)


@click.command("calibrate")
@FOLDER
@click.option("--device", type=TEXT, metavar="NAME", help="The GPU, where FOLDER does not say.")
@click.option("--model", type=TEXT, metavar="NAME", help="The simulated model to stand for it.")
def calibrate_command(folder: Path, device: str | None, model: str | None) -> None:
    """Fit the simulated GPU to what FOLDER has measured in mode exclusive.

    The first half of each cell's requests is fitted, the second half says how good that is.
    """
    from fairshare.runner.calibration import calibrate_folder

    found, path, provenance = calibrate_folder(folder, device, model)
    constants = found.constants
    click.echo(
        f"{found.requests} requests that had the device to themselves ({', '.join(provenance)}):"
    )
    click.echo(f"  compute efficiency  {constants.compute_efficiency:.3f} of the peak")
    click.echo(f"  memory efficiency   {constants.memory_efficiency:.3f} of the bandwidth")
    click.echo(f"  front end           {1e3 * constants.front_end_s:.1f} ms")
    click.echo("mean error            TTFT     TPOT      E2E")
    for name, errors in (
        ("before", found.uncalibrated),
        ("fitted half", found.fitted),
        ("held-out half", found.held_out),
    ):
        shown = "  ".join(f"{100 * e:+6.1f} %" for e in (errors.ttft, errors.tpot, errors.e2e))
        click.echo(f"  {name:16s} {shown}")
    click.echo(f"kept in {path}; use it with: fairshare predict --calibration {folder}")


def _predict(
    output_dir: Path | None, constants: Any, given: dict[str, Any], asked: Asked, *, report: bool
) -> None:
    from fairshare.analysis import build
    from fairshare.records import CellStatus
    from fairshare.runner.plan import make_plan
    from fairshare.runner.predict import predict, require_simulated
    from fairshare.runner.rerun import request_of
    from fairshare.runner.search import check_search
    from fairshare.runner.session import default_output_dir
    from fairshare.runner.settings import settle
    from fairshare.ui.outcome import show_analysis

    matrix, flags = matrix_of(given), flags_of(given)
    if flags.device is None and matrix.device is None:
        flags = replace(flags, device="virtual")
    settings = settle(matrix, flags, scenarios=asked.of(matrix.scenarios))
    require_simulated(settings)
    click.echo(f"device: {settings.device_reason}; in virtual time")
    directory = output_dir or default_output_dir(f"predicted-{matrix.name}")
    plan = make_plan(settings)
    check_search(settings, plan)
    before_s = time.monotonic()
    outcome = predict(
        settings,
        plan,
        directory,
        request=request_of(matrix, flags),
        constants=constants,
    )
    took_s = time.monotonic() - before_s
    show_analysis(build(directory, figures=report, html=report))
    click.echo(f"{outcome.count(CellStatus.OK)} cells predicted in {took_s:.1f} s; in {directory}")
    failed = outcome.went_wrong or not outcome.count(CellStatus.OK)
    sys.exit(ExitCode.SOME_CELLS_FAILED if failed else ExitCode.OK)


def _against(folder: Path, output_dir: Path | None, constants: Any, given: dict[str, Any]) -> None:
    from fairshare.runner.against import predict_against
    from fairshare.runner.session import default_output_dir
    from fairshare.ui.compared import show_compared

    if given["scenarios"] or given["matrix_name"]:
        raise click.UsageError("--against takes scenarios and modes from DIR: give no SCENARIO")
    into = output_dir or default_output_dir(f"predicted-{folder.resolve().name}")
    compared, missing = predict_against(
        folder, into, gpu=given["device"], model=given["model"], constants=constants
    )
    show_compared(compared, missing)
    sys.exit(ExitCode.OK if compared else ExitCode.SOME_CELLS_FAILED)
