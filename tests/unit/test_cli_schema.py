"""Schemas of all files: what is shipped and written fits them, and what is wrong does not."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from fairshare.analysis import build
from fairshare.cli.schema import schema_command, schema_of
from fairshare.records import CellResult
from fairshare.results import layout
from fairshare.results.packed import opened, stored
from tests.results_factory import make_results

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("scenario", "launcher", "matrix")
FOLDERS = {"scenario": "scenarios", "launcher": "launchers", "matrix": "matrix"}


@cache
def validator(kind: str) -> Draft202012Validator:
    """What checks values of this kind; the schema itself is checked first."""
    schema = schema_of(kind)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def complaints(kind: str, value: Any) -> list[str]:
    """What the schema has against a value."""
    return [f"{list(e.path)}: {e.message[:200]}" for e in validator(kind).iter_errors(value)]


@pytest.mark.parametrize("kind", KINDS)
def test_all_shipped_files_fit_their_schemas(kind: str) -> None:
    """An editor that follows the schema has nothing against ours, units of time included."""
    files = sorted((ROOT / FOLDERS[kind]).glob("*.yaml"))
    assert files
    for path in files:
        assert not complaints(kind, yaml.safe_load(path.read_text())), path.name


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("scenario", "name: a\ntenants: [{name: b, output: {kind: fixed, tokens: few}}]"),
        ("scenario", "name: a\nbeauty: 1\ntenants: []"),
        ("launcher", "name: a\nengine: teapot\ncommand: [x]"),
        ("matrix", "name: a\nscenarios: [b]\nwindow_s: 20 fortnights"),
        ("tenants", "alice: {weight: heavy}"),
    ],
)
def test_wrong_files_do_not_fit(kind: str, text: str) -> None:
    """A wrong type, an unknown field, another unit: underlined while it is typed."""
    assert complaints(kind, yaml.safe_load(text))


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file as values by column, numbers as numbers, whether packed or not."""
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                yield {name: _value(name, text) for name, text in row.items()}
        return
    if (there := stored(path)) is not None:
        with opened(there) as file:
            yield from map(orjson.loads, file)


def _value(name: str, text: str) -> Any:
    return text if name == "server" else float(text) if text else None


def check_folder(folder: Path) -> int:
    """Hold all files of a result folder against their schemas; returns how many values."""
    held = [("result", orjson.loads((folder / layout.MATRIX).read_bytes()))]
    summary = folder / layout.ANALYSIS / layout.SUMMARY_JSON
    if summary.exists():
        held.append(("summary", orjson.loads(summary.read_bytes())))
    if (folder / layout.EVENTS).exists():
        held += [("event", line) for line in lines(folder / layout.EVENTS)]
    for cell in sorted((folder / layout.CELLS).iterdir()):
        held.append(("cell", orjson.loads((cell / layout.CELL).read_bytes())))
        if (cell / layout.CONFIG).exists():
            held.append(("config", yaml.safe_load((cell / layout.CONFIG).read_text())))
        for kind, name in (
            ("request", layout.REQUESTS), ("decision", layout.SCHEDULING),
            ("server-metrics", layout.SERVER_METRICS), ("gpu", layout.GPU), ("host", layout.HOST),
        ):  # fmt: skip
            if stored(cell / name) is not None:
                held += [(kind, line) for line in list(lines(cell / name))[:30]]
    for kind, value in held:
        assert not complaints(kind, value), (folder.name, kind)
    return len(held)


def test_the_committed_results_fit_their_schemas() -> None:
    """Results of earlier versions too: golden folders and reference runs."""
    folders = [path.parent for path in (ROOT / "tests/golden").rglob(layout.MATRIX)]
    folders += [path.parent for path in (ROOT / "results/reference").glob(f"*/{layout.MATRIX}")]
    assert sum(map(check_folder, folders)) > 100


def test_a_fresh_result_folder_fits_the_schemas(tmp_path: Path) -> None:
    """Everything that is written today, the summary included."""
    make_results(tmp_path / "r", repetitions=1, concurrency=[4], window_s=5.0)
    build(tmp_path / "r", figures=False, html=False)
    assert check_folder(tmp_path / "r") > 50


def test_damaged_results_do_not_fit(tmp_path: Path) -> None:
    """Another version, an unknown field, a word where a number belongs."""
    store = make_results(tmp_path / "r", repetitions=1, concurrency=[4], window_s=5.0)
    [stored_cell, *_] = store.cells()
    cell = orjson.loads((stored_cell.dir / layout.CELL).read_bytes())
    request = orjson.loads((stored_cell.dir / layout.REQUESTS).read_bytes().splitlines()[0])
    for kind, good, change in (
        ("cell", cell, {"format_version": 2}),
        ("cell", cell, {"beauty": 1}),
        ("cell", cell, {"status": "fine"}),
        ("request", request, {"end_ns": "late"}),
        ("request", request, {"error": "sadness"}),
        ("request", request, {"beauty": 1}),
    ):
        assert not complaints(kind, good)
        assert complaints(kind, deepcopy(good) | change), change
    assert complaints("result", {"format_version": 1, "plan": {}})


def test_the_schema_of_a_cell_knows_each_of_its_fields() -> None:
    """It is made from the dataclass, so a new field cannot be forgotten."""
    assert set(schema_of("cell")["properties"]) == set(CellResult.__dataclass_fields__)


def test_an_editor_is_set_up_without_touching_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings are made where there are none; the user's own are shown what to add, and kept."""
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    assert runner.invoke(schema_command, ["--write"]).exit_code == 0
    settings = tmp_path / ".vscode/settings.json"
    told = orjson.loads(settings.read_bytes())["yaml.schemas"]
    assert {"scenarios/*.yaml", "launchers/*.yaml", "matrix/*.yaml"} == set(told.values())
    for name in told:
        Draft202012Validator.check_schema(orjson.loads((tmp_path / name).read_bytes()))
    settings.write_text("// mine")
    done = runner.invoke(schema_command, ["--write"])
    assert settings.read_text() == "// mine"
    assert "yaml.schemas" in done.output
    assert "yaml-language-server" in done.output
    other = runner.invoke(schema_command, ["scenario", "--write", "elsewhere"])
    assert other.exit_code == 0
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["scenario.schema.json"]
