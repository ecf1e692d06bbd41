"""compare: result folders side by side, and an exit code for continuous integration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fairshare.errors import ExitCode
from fairshare.units import parse_fraction

if TYPE_CHECKING:
    from fairshare.analysis.compare import Limits

_FORMATS = ("text", "json", "markdown", "csv")
_DEFAULT = 0.05


class _Limit(click.ParamType[tuple[str | None, float]]):
    """``5%``, or for one figure ``ttft_p99_s=10%``."""

    name = "[METRIC=]SHARE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str | None, float]:
        """The metric (None: all) and the limit as a fraction.

        Raises:
            click.BadParameter: it is something else.
        """
        metric, found, share = str(value).rpartition("=")
        try:
            limit = parse_fraction(share)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if not 0 <= limit < 100 or ("%" not in share and limit > 1):
            self.fail(f"{share!r} is not a share; write it like 5% or 0.05", param, ctx)
        return (metric if found else None), limit


@click.command("compare")
@click.argument(
    "folders", metavar="A B...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), default="text", show_default=True,
    help="How to print it.",
)  # fmt: skip
@click.option(
    "--metric", "metrics", multiple=True, metavar="METRIC",
    help="Only this figure, named as in summary.csv; may be repeated.",
)  # fmt: skip
@click.option("--only-changed", is_flag=True, help="Leave out figures that show no difference.")
@click.option(
    "--fail-on-regression", is_flag=True,
    help="Exit with 6 if a figure is worse than in A, beyond doubt and by more than "
    "--max-regression, or a cell that worked in A does not.",
)  # fmt: skip
@click.option(
    "--max-regression", "limits", multiple=True, type=_Limit(),
    help="How much worse is no regression yet (default: 5%), of all figures or of one; may be "
    "repeated. Switches --fail-on-regression on.",
)  # fmt: skip
def compare_command(
    *,
    folders: tuple[Path, ...],
    form: str,
    metrics: tuple[str, ...],
    only_changed: bool,
    fail_on_regression: bool,
    limits: tuple[tuple[str | None, float], ...],
) -> ExitCode:
    """Hold the result folders B... against A: same cells paired, differences with intervals.

    What the folders differ in besides their figures (driver, engine, model, clocks, machine,
    settings) stands first. Repetitions of the same number answered the same requests, and are
    paired.
    """
    from fairshare.analysis.compare import compare
    from fairshare.analysis.comparison import as_csv, as_json, as_markdown
    from fairshare.analysis.differences import BETTER_IS_HIGHER
    from fairshare.ui.comparison import show_comparison

    if len(folders) < 2:
        raise click.UsageError("give two result folders at least: fairshare compare A B")
    for metric in (*metrics, *(metric for metric, _ in limits if metric is not None)):
        if metric not in BETTER_IS_HIGHER:
            raise click.UsageError(
                f"{metric!r} is not compared; these are: {', '.join(BETTER_IS_HIGHER)}"
            )
    found = compare(folders, _limits(limits), metrics or tuple(BETTER_IS_HIGHER))
    if form == "text":
        show_comparison(found, only_changed=only_changed)
    else:
        click.echo({"json": as_json, "csv": as_csv, "markdown": as_markdown}[form](found))
    if (fail_on_regression or limits) and (found.regressions or found.broken):
        return ExitCode.REGRESSION
    return ExitCode.OK


def _limits(given: tuple[tuple[str | None, float], ...]) -> Limits:
    from fairshare.analysis.compare import Limits

    general = [limit for metric, limit in given if metric is None]
    return Limits(
        general=general[-1] if general else _DEFAULT,
        by_metric={metric: limit for metric, limit in given if metric is not None},
    )
