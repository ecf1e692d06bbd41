"""matrix, run, plan: from flags to a plan, and from a plan to results."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fairshare.cli.choosing import (
    again_flags,
    choice_of,
    is_again,
    selected,
    selection_flags,
    selection_of,
)
from fairshare.cli.cluster import cluster_flags, spread
from fairshare.cli.finishing import drawing_ahead, finish_flags, finishing, hook_of
from fairshare.cli.judging import price_flag, price_per_hour
from fairshare.cli.options import (
    FLOATS,
    INTEGERS,
    MODE,
    MODES,
    PLACE,
    PLACES,
    POLICIES,
    TEXT,
    load_flags,
    night_flags,
    policy_flags,
    where_flags,
)
from fairshare.cli.searching import search_flags
from fairshare.cli.wishes import DEFAULT_MATRIX, flags_of, matrix_of
from fairshare.errors import ExitCode, FairshareError

if TYPE_CHECKING:
    from fairshare.runner.hook import Hook
    from fairshare.runner.plan import RunPlan
    from fairshare.runner.renewal import Choice
    from fairshare.runner.settings import Flags, Settings
    from fairshare.runner.site import Site
    from fairshare.spec.matrix import Matrix

SECONDS_PER_HOUR = 3600
OUTPUT_DIR = click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where results go (default: results/NAME-DATE-TIME).",
)
_DEFINED_BY_THE_CELL = (
    "mode",
    "concurrency",
    "load_scale",
    "warmup",
    "window",
    "drain",
    "seed",
    "load_processes",
    "transport",
    "mig",
    "mig_layout",
    "mps_partitioning",
    "timeslice_policy",
    "lock_clocks",
    "policy",
    "scheduling",
    "gateway_window",
)


def sweep_flags(command: Any) -> Any:
    """What to run, and on what."""
    for option in reversed(
        [
            click.argument("scenarios", nargs=-1, metavar="[SCENARIO]..."),
            click.option(
                "--matrix",
                "matrix_name",
                metavar="NAME|PATH",
                help=f"A sweep to start from (without a SCENARIO: {DEFAULT_MATRIX}).",
            ),
            click.option("--modes", type=MODES, help="exclusive, logical, timeslice, mps, mig."),
            click.option(
                "--policies", type=POLICIES, help="Who is next in mode logical: fcfs, vtc, ..."
            ),
            click.option(
                "--scheduling",
                type=PLACES,
                help="Where policies decide: gateway (the default), engine, priority.",
            ),
            click.option("--concurrency", type=INTEGERS, help="In flight, per closed-loop tenant."),
            click.option("--load-scale", type=FLOATS, help="Factors on open-loop rates."),
        ]
    ):
        command = option(command)
    return where_flags(load_flags(policy_flags(night_flags(command))))


@click.command("matrix")
@sweep_flags
@search_flags
@selection_flags
@OUTPUT_DIR
@again_flags
@cluster_flags
@click.option(
    "--max-hours",
    type=click.FLOAT,
    help="Leave the cells that no longer fit to a later call with --resume (exit code 5).",
)
@click.option(
    "--skip-unready-modes",
    is_flag=True,
    help="Try each mode first; where one cannot be had, its cells are infeasible, the others run.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan and stop (the same as plan).")
@click.option("--no-report", is_flag=True, help="Leave out figures and page; build them later.")
@finish_flags
@price_flag
def matrix_command(
    *,
    output_dir: Path | None,
    max_hours: float | None,
    skip_unready_modes: bool,
    dry_run: bool,
    no_report: bool,
    **given: Any,
) -> None:
    """Run every SCENARIO in every mode at every concurrency, and report the differences.

    Without arguments the sweep `quick` runs on the best device that is ready; without a usable
    GPU that is the simulated one, and every figure says so.
    """
    if max_hours is not None and not max_hours > 0:
        raise click.UsageError("--max-hours is more than 0")
    budget_s = None if max_hours is None else max_hours * SECONDS_PER_HOUR
    resume, choice = choice_of(given)
    hook = hook_of(given)
    matrix, flags = matrix_of(given), flags_of(given)
    many = spread(given, matrix, flags, output_dir)
    settings, plan, site = many or (*_settle(matrix, flags), None)
    if dry_run:
        if resume and output_dir is not None:
            plan = _still_to_run(settings, plan, flags, output_dir, choice)
        _show_plan(settings, selected(plan, choice.selection), budget_s)
        return
    _execute(
        settings,
        plan,
        flags,
        output_dir,
        resume=resume,
        choice=choice,
        report=not no_report,
        budget_s=budget_s,
        skip_unready=skip_unready_modes,
        hook=hook,
        site=site,
    )


@click.command("plan")
@sweep_flags
@search_flags
@selection_flags
def plan_command(**given: Any) -> None:
    """Show every cell in order, every command that would run, what cannot run, and the time."""
    selection = selection_of(given)
    settings, plan = _settle(matrix_of(given), flags_of(given))
    _show_plan(settings, selected(plan, selection))


@click.command("run")
@click.argument("scenario", required=False)
@click.option("--mode", type=MODE, help="How the tenants share the device.")
@click.option("--policy", type=TEXT, help="Who is next in mode logical: fcfs, vtc, ...")
@click.option("--scheduling", type=PLACE, help="Where the policy decides (default: gateway).")
@click.option("--concurrency", type=click.IntRange(min=1), help="Per closed-loop tenant.")
@click.option("--load-scale", type=click.FLOAT, help="Factor on open-loop rates.")
@click.option("--rerun", metavar="CELL_ID", help="Repeat a cell of a result folder.")
@click.option(
    "--results",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="The result folder that holds the cell to --rerun.",
)
@where_flags
@load_flags
@policy_flags
@OUTPUT_DIR
@again_flags
@finish_flags
def run_command(
    scenario: str | None,
    rerun: str | None,
    folder: Path | None,
    output_dir: Path | None,
    **given: Any,
) -> None:
    """Run a single cell: one SCENARIO in one mode (in exclusive mode, one per tenant)."""
    resume, choice = choice_of(given)
    hook = hook_of(given)
    if rerun is not None:
        if folder is None or scenario is not None:
            raise click.UsageError("--rerun CELL_ID goes with --results FOLDER and no SCENARIO")
        if vain := [name for name in _DEFINED_BY_THE_CELL if given[name] is not None]:
            flag = vain[0].replace("_", "-")
            raise click.UsageError(f"--{flag} is what the cell to --rerun already defines")
        settings, plan, flags = _replay(folder, rerun, flags_of(given))
    else:
        if scenario is None or given["mode"] is None:
            raise click.UsageError("say which SCENARIO to run, and its --mode")
        single = {
            **given,
            "scenarios": (scenario,),
            "matrix_name": None,
            "modes": [given["mode"]],
            "policies": [given["policy"]] if given["policy"] else None,
            "scheduling": [given["scheduling"]] if given["scheduling"] else None,
            "concurrency": [given["concurrency"]] if given["concurrency"] else None,
            "load_scale": [given["load_scale"]] if given["load_scale"] else None,
            "num_runs": None,
        }
        flags = flags_of(given)
        settings, plan = _settle(matrix_of(single), flags)
    _execute(
        settings, plan, flags, output_dir, resume=resume, choice=choice, report=True, hook=hook
    )


def _settle(matrix: Matrix, flags: Flags) -> tuple[Settings, RunPlan]:
    from fairshare.runner.plan import make_plan
    from fairshare.runner.search import check_search
    from fairshare.runner.settings import settle

    settings = settle(matrix, flags)
    click.echo(f"device: {settings.device_reason}")
    plan = make_plan(settings)
    check_search(settings, plan)
    return settings, plan


def _replay(folder: Path, cell: str, flags: Flags) -> tuple[Settings, RunPlan, Flags]:
    from fairshare.runner.rerun import replay

    return replay(folder, cell, flags)


def _show_plan(settings: Settings, plan: RunPlan, budget_s: float | None = None) -> None:
    from fairshare.ui.planview import show_plan

    show_plan(settings, plan, budget_s)


def _execute(
    settings: Settings,
    plan: RunPlan,
    flags: Flags,
    output_dir: Path | None,
    *,
    resume: bool,
    choice: Choice,
    report: bool,
    budget_s: float | None = None,
    skip_unready: bool = False,
    hook: Hook | None = None,
    site: Site | None = None,
) -> None:
    """Run, analyse what there is, show it, and end with the exit code that it deserves."""
    from fairshare.runner.ground import ground
    from fairshare.runner.rerun import request_of
    from fairshare.runner.session import default_output_dir, execute
    from fairshare.ui.live import live_view
    from fairshare.ui.outcome import show_outcome

    if resume and output_dir is None:
        raise click.UsageError("--resume, --retry-failed and --force need the --output-dir")
    directory = output_dir or default_output_dir(settings.matrix.name)
    with finishing(hook, directory) as tally:
        ahead = [drawing_ahead(tally, settings.launcher.engine)] if report else []
        try:
            with live_view() as listener:
                outcome = execute(
                    settings,
                    plan,
                    directory,
                    resume=resume,
                    choice=choice,
                    request=request_of(settings.matrix, flags),
                    listeners=[listener, tally, *ahead],
                    budget_s=budget_s,
                    skip_unready=skip_unready,
                    site=site or ground,
                )
        except FairshareError as error:
            if error.exit_code not in (ExitCode.BAD_INPUT, ExitCode.DEVICE_BUSY):
                with contextlib.suppress(FairshareError):  # what is wrong is said already
                    _show(directory, report=report)
            raise
        _show(directory, report=report)
        sys.exit(show_outcome(outcome, directory, _resume_command(directory)))


def _still_to_run(
    settings: Settings, plan: RunPlan, flags: Flags, directory: Path, choice: Choice
) -> RunPlan:
    from fairshare.results.store import ResultStore
    from fairshare.runner.rerun import request_of
    from fairshare.runner.search import knee_hunt
    from fairshare.runner.session import left_to_run

    store, request = ResultStore.open(directory), request_of(settings.matrix, flags)
    left, _ = left_to_run(store, plan, knee_hunt(settings), choice, request)
    return left


def _show(directory: Path, *, report: bool) -> None:
    from fairshare.analysis import build
    from fairshare.ui.outcome import show_analysis

    built = build(directory, figures=report, html=report, price_per_hour=price_per_hour())
    show_analysis(built)


def _resume_command(directory: Path) -> str:
    """The command that continues this one."""
    words = ["fairshare", *(word for word in sys.argv[1:] if not is_again(word))]
    if not any(word.partition("=")[0] == "--output-dir" for word in words):
        words += ["--output-dir", str(directory)]
    return shlex.join([*words, "--resume"])
