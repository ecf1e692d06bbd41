"""matrix, run, plan: from flags to a plan, and from a plan to results."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
    policy_flags,
    where_flags,
)
from fairshare.errors import ExitCode, FairshareError

if TYPE_CHECKING:
    from fairshare.runner.plan import RunPlan
    from fairshare.runner.settings import Flags, Settings
    from fairshare.spec.matrix import Matrix

DEFAULT_MATRIX = "quick"
SECONDS_PER_HOUR = 3600
OUTPUT_DIR = click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where results go (default: results/NAME-DATE-TIME).",
)
RESUME = click.option(
    "--resume", is_flag=True, help="Run only the cells that --output-dir still lacks."
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
    "policy",
    "scheduling",
    "gateway_window",
)
_FLAG_FIELDS = (
    "device",
    "gpu",
    "launcher",
    "model",
    "engine_args",
    "python",
    "allow_gpu_changes",
    "allow_gpu_reset",
    "allow_foreign",
)
_SWEEP_FLAGS = (
    "modes",
    "policies",
    "scheduling",
    "gateway_window",
    "concurrency",
    "load_scale",
    "num_runs",
    "seed",
    "load_processes",
    "transport",
)
# Section of the matrix -> its entries, each with the flag that sets it.
_SECTION_FLAGS = {
    "mig": {"how": "mig", "layout": "mig_layout"},
    "mps": {"partitioning": "mps_partitioning"},
    "timeslice": {"policy": "timeslice_policy"},
}


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
            click.option("--num-runs", type=click.IntRange(1, 1000), help="Repetitions."),
        ]
    ):
        command = option(command)
    return where_flags(load_flags(policy_flags(command)))


@click.command("matrix")
@sweep_flags
@OUTPUT_DIR
@RESUME
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
def matrix_command(
    *,
    output_dir: Path | None,
    resume: bool,
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
    matrix, flags = matrix_of(given), flags_of(given)
    settings, plan = _settle(matrix, flags)
    if dry_run:
        _show_plan(settings, plan, budget_s)
        return
    _execute(
        settings,
        plan,
        flags,
        output_dir,
        resume=resume,
        report=not no_report,
        budget_s=budget_s,
        skip_unready=skip_unready_modes,
    )


@click.command("plan")
@sweep_flags
def plan_command(**given: Any) -> None:
    """Show every cell in order, every command that would run, what cannot run, and the time."""
    _show_plan(*_settle(matrix_of(given), flags_of(given)))


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
@RESUME
def run_command(
    scenario: str | None,
    rerun: str | None,
    folder: Path | None,
    output_dir: Path | None,
    resume: bool,
    **given: Any,
) -> None:
    """Run a single cell: one SCENARIO in one mode (in exclusive mode, one per tenant)."""
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
    _execute(settings, plan, flags, output_dir, resume=resume, report=True)


def matrix_of(given: dict[str, Any]) -> Matrix:
    """The sweep file with the flags laid over it; scenarios alone need no file."""
    from fairshare.spec.loading import load_matrix, validate
    from fairshare.spec.matrix import Matrix

    base: dict[str, Any] = {}
    if given["matrix_name"] or not given["scenarios"]:
        matrix = load_matrix(given["matrix_name"] or DEFAULT_MATRIX)
        base = matrix.model_dump(exclude_unset=True)
    renamed = {"warmup": "warmup_s", "window": "window_s", "drain": "drain_s"}
    changes: dict[str, Any] = {}
    for name in (*_SWEEP_FLAGS, *renamed):
        if given.get(name) is not None:
            changes[renamed.get(name, name)] = given[name]
    policies = changes.get("policies") or base.get("policies")
    if given["policy_options"]:
        changes["policies"] = _with_options(policies or ["fcfs"], given["policy_options"])
    for section, flags in _SECTION_FLAGS.items():
        if said := {k: given[f] for k, f in flags.items() if given[f] is not None}:
            changes[section] = {**(base.get(section) or {}), **said}
    if given["scenarios"]:
        changes["scenarios"] = list(given["scenarios"])
        if given["matrix_name"] is None:
            changes["name"] = _result_name(given["scenarios"])
    matrix = validate({**base, **changes}, Matrix)
    _refuse_in_vain(given, matrix)
    return matrix


def _with_options(
    policies: list[Any], options: tuple[tuple[str, str, Any], ...]
) -> list[dict[str, Any]]:
    """The policies with the options that flags give them; each has its name in every flag."""
    made = [{"kind": each} if isinstance(each, str) else dict(each) for each in policies]
    for policy, name, value in options:
        of_it = [each for each in made if each["kind"] == policy]
        if not of_it:
            asked = ", ".join(dict.fromkeys(each["kind"] for each in made))
            raise click.UsageError(
                f"--policy-option {policy}.{name}: {policy} is not among the policies ({asked})"
            )
        for each in of_it:
            each[name] = value
    return made


def _refuse_in_vain(given: dict[str, Any], matrix: Matrix) -> None:
    """Flags about a mode that is not among the modes; each section is called as its mode."""
    modes = [mode.value for mode in matrix.modes]
    for section, flags in _SECTION_FLAGS.items():
        for flag in flags.values():
            if given[flag] is not None and section not in modes:
                raise click.UsageError(
                    f"--{flag.replace('_', '-')} is for mode {section}, and the modes are "
                    + ", ".join(modes)
                )


def _result_name(scenarios: tuple[str, ...]) -> str:
    names = "-".join(Path(name).stem for name in scenarios).lower()
    cleaned = "".join(c if c.isalnum() or c in "._-" else "-" for c in names).strip("._-")
    return cleaned[:48] or "matrix"


def flags_of(given: dict[str, Any]) -> Flags:
    """The flags that are no part of a sweep."""
    from fairshare.runner.settings import Flags

    values = {name: given[name] for name in _FLAG_FIELDS}
    values["engine_args"] = dict(given["engine_args"])
    return Flags(**values)


def _settle(matrix: Matrix, flags: Flags) -> tuple[Settings, RunPlan]:
    from fairshare.runner.plan import make_plan
    from fairshare.runner.settings import settle

    settings = settle(matrix, flags)
    click.echo(f"device: {settings.device_reason}")
    return settings, make_plan(settings)


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
    report: bool,
    budget_s: float | None = None,
    skip_unready: bool = False,
) -> None:
    """Run, analyse what there is, show it, and end with the exit code that it deserves."""
    from fairshare.runner.rerun import request_of
    from fairshare.runner.session import default_output_dir, execute
    from fairshare.ui.outcome import show_outcome
    from fairshare.ui.progress import Progress

    if resume and output_dir is None:
        raise click.UsageError("--resume needs the --output-dir to continue")
    directory = output_dir or default_output_dir(settings.matrix.name)
    try:
        outcome = execute(
            settings,
            plan,
            directory,
            resume=resume,
            request=request_of(settings.matrix, flags),
            listeners=[Progress()],
            budget_s=budget_s,
            skip_unready=skip_unready,
        )
    except FairshareError as error:
        if error.exit_code not in (ExitCode.BAD_INPUT, ExitCode.DEVICE_BUSY):
            with contextlib.suppress(FairshareError):  # what is wrong is said already
                _show(directory, report=report)
        raise
    _show(directory, report=report)
    sys.exit(show_outcome(outcome, directory, _resume_command(directory)))


def _show(directory: Path, *, report: bool) -> None:
    from fairshare.analysis import build
    from fairshare.ui.outcome import show_analysis

    show_analysis(build(directory, figures=report, html=report))


def _resume_command(directory: Path) -> str:
    """The command that continues this one."""
    words = ["fairshare", *(word for word in sys.argv[1:] if word != "--resume")]
    if not any(word.partition("=")[0] == "--output-dir" for word in words):
        words += ["--output-dir", str(directory)]
    return shlex.join([*words, "--resume"])
