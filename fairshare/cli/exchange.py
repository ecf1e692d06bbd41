"""import, export: results from other tools, and for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fairshare.cli.output import say

if TYPE_CHECKING:
    from fairshare.results.exchange import ImportedCell

_EXPORTS = ("parquet", "csv", "vllm-bench")
_FORMATS = ("vtc-artifact", "vllm-bench", "fairserve")
_HIGHEST_WEIGHT = 1e6


class _Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers of 0 or more with ``separator`` between them: ``1,2,3`` or ``60-330``."""

    def __init__(self, name: str, separator: str, count: int | None = None) -> None:
        self.name, self.separator, self.count = name, separator, count

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """The numbers.

        Raises:
            click.BadParameter: they are something else.
        """
        parts = str(value).split(self.separator)
        try:
            numbers = tuple(float(part) for part in parts)
        except ValueError:
            numbers = ()
        if (
            not numbers
            or self.count not in (None, len(numbers))
            or not all(0 <= number < 1e9 for number in numbers)
        ):
            self.fail(f"{value!r} is not like {self.name}", param, ctx)
        return numbers


@click.command("import")
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), required=True,
    help="Who wrote FILE: the VTC artifact, vllm bench serve --save-detailed, or FairServe's.",
)  # fmt: skip
@click.option(
    "--output-dir", type=click.Path(path_type=Path),
    help="Where results go (default: results/imported-DATE-TIME).",
)  # fmt: skip
@click.option("--scenario", help="What to call the workload (default: from the file's name).")
@click.option(
    "--policy", "policies", multiple=True,
    help="Which policy FILE was measured under, once per FILE (default: from the file's name).",
)  # fmt: skip
@click.option(
    "--weights", type=_Numbers("1,2,3,4", ","),
    help="Weights of the tenants, in the order of their names (default: 1 each).",
)  # fmt: skip
@click.option(
    "--window", type=_Numbers("60-330", "-", 2),
    help="The measured window in seconds from the start (default: by the format).",
)  # fmt: skip
@click.option(
    "--kv-tokens", type=click.IntRange(min=1),
    help="The server's KV cache in tokens, from which VTC's bound on differences follows.",
)  # fmt: skip
def import_command(
    *,
    files: tuple[Path, ...],
    form: str,
    output_dir: Path | None,
    scenario: str | None,
    policies: tuple[str, ...],
    weights: tuple[float, ...] | None,
    window: tuple[float, ...] | None,
    kv_tokens: int | None,
) -> None:
    """Turn results of other tools into a result folder, one cell per run.

    They stay marked as measured by others, in every table and figure. Several files become cells
    side by side: give those of the same workload under different policies.
    """
    from fairshare.results.exchange import ForeignFormat, Said, import_results

    if any(not 0 < weight <= _HIGHEST_WEIGHT for weight in weights or ()):
        raise click.UsageError("--weights must be above 0")
    if window is not None and window[0] >= window[1]:
        raise click.UsageError("--window must end after it begins: --window 60-330")
    directory = output_dir or _new_folder()
    said = Said(
        scenario=scenario,
        policies=policies,
        weights=weights or (),
        window_s=None if window is None else (window[0], window[1]),
        kv_tokens=kv_tokens,
    )
    for cell in import_results(files, ForeignFormat(form), directory, said):
        _tell(cell)
    say(f"results in {directory}; next:")
    say(f"  fairshare report {directory}")


@click.command("export")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(_EXPORTS), required=True,
    help="Tables of requests and of figures (parquet, csv), or vllm bench serve's JSON.",
)  # fmt: skip
@click.option(
    "--output-dir", type=click.Path(path_type=Path, file_okay=False),
    help="Where the files go (default: analysis/export of FOLDER).",
)  # fmt: skip
def export_command(folder: Path, form: str, output_dir: Path | None) -> None:
    """Write the requests and figures of the result folder FOLDER for other tools.

    parquet and csv make requests.* (a line per request) and cells.* (the summary); vllm-bench
    makes a file per cell and tenant, which import --format vllm-bench reads back.
    """
    from fairshare.analysis.export import ExportFormat, export

    written = export(folder, ExportFormat(form), output_dir)
    for path in written:
        say(f"wrote {path}")
    if not written:
        say("nothing to write: no cell was measured to its end")


def _new_folder() -> Path:
    from fairshare.runner.session import default_output_dir

    return default_output_dir("imported")


def _tell(cell: ImportedCell) -> None:
    failed = f", {cell.failures} of them failed" if cell.failures else ""
    requests, tenants = _count(cell.requests, "request"), _count(len(cell.tenants), "tenant")
    say(f"{cell.mode_label}: {requests} of {tenants}{failed}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
