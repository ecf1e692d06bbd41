"""schema: JSON Schemas of all files, and editors set up to use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson

from fairshare.errors import SpecError

_WRITTEN = ("scenario", "launcher", "matrix", "tenants")
_RESULTS = (
    "result", "cell", "config", "request", "event", "decision", "server-metrics", "gpu", "host",
    "summary",
)  # fmt: skip
_KINDS = (*_WRITTEN, *_RESULTS)
_HERE = ".vscode/fairshare"
_SETTINGS = Path(".vscode/settings.json")
_YAML = {"scenario": "scenarios/*.yaml", "launcher": "launchers/*.yaml", "matrix": "matrix/*.yaml"}
_JSON = {
    "result": "results/**/matrix.json",
    "cell": "results/**/cell.json",
    "summary": "results/**/analysis/summary.json",
}


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON Schema of one kind of file."""
    from pydantic import TypeAdapter

    from fairshare.gateway.settings import TenantName
    from fairshare.gateway.tenants_file import WrittenTenant
    from fairshare.results.schemas import SCHEMAS, result_schema
    from fairshare.spec.loading import SPECS

    if kind in SCHEMAS:
        return result_schema(kind)
    if kind == "tenants":
        return TypeAdapter(dict[TenantName, WrittenTenant | None]).json_schema()
    return SPECS[kind].model_json_schema()


@click.command("schema")
@click.argument("kind", required=False, type=click.Choice(_KINDS))
@click.option(
    "--write", is_flag=False, flag_value=_HERE, type=click.Path(path_type=Path, file_okay=False),
    metavar="[FOLDER]",
    help="Write KIND.schema.json files there. Without FOLDER also tell VS Code of them, in "
    ".vscode of the working folder; no settings of yours are changed.",
)  # fmt: skip
def schema_command(kind: str | None, write: Path | None) -> None:
    """Print the JSON Schema of KIND, or write all of them for an editor.

    scenario, launcher, matrix and tenants (of a gateway) are what you write; the others are the
    files of a result folder.
    """
    if write is None and kind is None:
        raise click.UsageError("say which KIND to print, or --write for all")
    if write is None:
        click.echo(_text(schema_of(str(kind))), nl=False)
        return
    for name in (kind,) if kind else _KINDS:
        _write(write / f"{name}.schema.json", _text(schema_of(name)))
    if write == Path(_HERE):
        _tell_vscode()
    click.echo("other editors: put a line like this first in a YAML file:")
    click.echo(f"# yaml-language-server: $schema={(write / 'scenario.schema.json').resolve()}")


def _tell_vscode() -> None:
    """Settings of the working folder, where it has none; else what to add to them."""
    settings = {
        "yaml.schemas": {f"./{_HERE}/{kind}.schema.json": files for kind, files in _YAML.items()},
        "json.schemas": [
            {"fileMatch": [files], "url": f"./{_HERE}/{kind}.schema.json"}
            for kind, files in _JSON.items()
        ],
    }
    if _SETTINGS.exists():
        click.echo(f"{_SETTINGS} is yours and stays as it is; add to it:")
        click.echo(_text(settings), nl=False)
    else:
        _write(_SETTINGS, _text(settings))


def _text(value: dict[str, Any]) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise SpecError(f"cannot write {path}: {error.strerror}") from None
    click.echo(f"wrote {path}")
