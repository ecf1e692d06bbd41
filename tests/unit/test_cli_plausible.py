"""fairshare plausible: of tables and folders, with an exit code for scripts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from fairshare.cli.plausible import plausible_command
from fairshare.records import CellKey, Mode
from fairshare.results import ResultStore, layout
from tests.results_factory import TWO_TENANTS, add_cell

TABLES = Path(__file__).parents[1] / "golden" / "claims" / "two-l4-tables.csv"
POSSIBLE = "name,device,model,concurrency,output_tokens_per_s\nx,l4,llama-3-8b,4,60\n"


def test_the_published_tables_are_told_row_by_row() -> None:
    """Each row has its word and its arithmetic, and the exit code says that some are impossible."""
    done = CliRunner().invoke(plausible_command, [str(TABLES)])
    assert done.exit_code == 1
    assert done.output.count("IMPOSSIBLE: ") == 5
    assert "\npossible: (a) P95 of a long prompt" in done.output
    assert "28,600 tokens take 1,356 s at least" in done.output
    assert done.output.endswith("5 of 6 rows are impossible\n")


def test_a_possible_table_ends_well(tmp_path: Path) -> None:
    """Nothing impossible is exit code 0, and the limit that was kept is shown."""
    (tmp_path / "t.csv").write_text(POSSIBLE)
    done = CliRunner().invoke(plausible_command, [str(tmp_path / "t.csv")])
    assert (done.exit_code, "keeps throughput: 60.0 output tok/s" in done.output) == (0, True)


@pytest.mark.parametrize(("device", "code"), [("h200", 0), ("l4", 1)])
def test_a_folder_is_held_against_what_is_named(tmp_path: Path, device: str, code: int) -> None:
    """The same figures are possible on one device and not on another."""
    store = ResultStore.create(tmp_path / "out", {})
    path = add_cell(store, CellKey("s", Mode.LOGICAL, 4), TWO_TENANTS, window_s=3.0)
    (path / layout.CONFIG).write_text(yaml.safe_dump({"device": {}}))
    bare = CliRunner().invoke(plausible_command, [str(store.dir)])
    assert (bare.exit_code, "the device is not told" in bare.output) == (0, True)
    arguments = [str(store.dir), "--device", device, "--model", "llama-3-8b"]
    named = CliRunner().invoke(plausible_command, arguments)
    assert named.exit_code == code
    assert f"{code} of 1 measured cells are impossible" in named.output
