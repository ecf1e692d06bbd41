"""The notebook that reads results with pandas: its cells run, and it has no outputs."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    """The cells of the notebook, of the format that it says it is of."""
    notebook = json.loads((DOCS / "reading-results.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    found: list[dict[str, Any]] = notebook["cells"]
    return found


def test_the_cells_run_on_the_reference_results(
    cells: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From top to bottom; the last but one checks a figure of the summary against the records."""
    monkeypatch.chdir(DOCS)
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)  # noqa: S102
    assert len(names["answered"]) > 10
    assert names["gain"].notna().all()
    assert names["gap_s"] < 1e-9


def test_only_pandas_and_the_standard_library_are_needed(cells: list[dict[str, Any]]) -> None:
    """Whoever gets a result folder by mail can read it."""
    source = "".join(
        line for c in cells if c["cell_type"] == "code" for line in [*c["source"], "\n"]
    )
    imported = {
        name
        for node in ast.walk(ast.parse(source))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported == {"pandas", "pathlib"}


def test_it_is_committed_without_outputs(cells: list[dict[str, Any]]) -> None:
    """Outputs would be figures without their provenance, and changes in every diff."""
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
