"""Result folders that were damaged say so, whatever reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from fairshare.errors import ResultsError
from tests.workplace import Workplace

RUN = (
    *("matrix", "brief.yaml", "--device", "virtual", "--modes", "logical", "--window", "0.5s"),
    *("--output-dir", "out", "--no-report"),
)


def _matrix(**changes: object) -> Callable[[Path, Path], None]:
    def change(matrix: Path, config: Path) -> None:
        matrix.write_bytes(orjson.dumps(orjson.loads(matrix.read_bytes()) | changes))

    return change


def _config(text: str) -> Callable[[Path, Path], None]:
    def change(matrix: Path, config: Path) -> None:
        config.write_text(text)

    return change


DAMAGES: list[tuple[Callable[[Path, Path], None], str]] = [
    (_matrix(starts=7), "damaged: starts is not a list"),
    (_matrix(request="no"), "damaged: request is not an object"),
    (_matrix(request={"matrix": {}, "flags": {"foo": 1}}), "damaged: the request"),
    (_matrix(request={"matrix": 7}), "damaged: the request"),
    (_config(": ["), "config.resolved.yaml: cannot be read"),
    (_config("scenario: 3"), "config.resolved.yaml: cannot be read"),
    (_config(""), "config.resolved.yaml: cannot be read"),
    (lambda matrix, config: config.unlink(), "config.resolved.yaml: cannot be read"),
]


def test_a_damaged_folder_ends_a_rerun_with_its_file(workplace: Workplace) -> None:
    """Every damage to what a rerun reads is one message that names the file."""
    assert workplace.run(*RUN).returncode == 0
    (cell,) = workplace.cells("out").values()
    matrix, config = workplace.path / "out" / "matrix.json", cell.dir / "config.resolved.yaml"
    sound = matrix.read_bytes(), config.read_bytes()
    for change, message in DAMAGES:
        change(matrix, config)
        done = workplace.run(
            "run", "--rerun", cell.result.id, "--results", "out", "--output-dir", "again"
        )
        assert "Traceback" not in done.stdout
        assert message in " ".join(done.stdout.split())
        assert done.returncode == 2
        matrix.write_bytes(sound[0])
        config.write_bytes(sound[1])


def test_a_damaged_cell_is_told_by_its_file(workplace: Workplace) -> None:
    """Values of another type, and records that are gone, are no figures and no traceback."""
    assert workplace.run(*RUN).returncode == 0
    (cell,) = workplace.cells("out").values()
    path = cell.dir / "cell.json"
    sound = path.read_bytes()
    good = orjson.loads(sound)
    tenant = good["tenants"][0]
    damages = [
        ({"window_ns": "a"}, "window_ns is not two whole numbers"),
        ({"end_ns": "a"}, "end_ns is not a whole number"),
        ({"tenants": [tenant | {"slo": 5}]}, "slo of a tenant does not hold numbers"),
        ({"tenants": [tenant | {"weight": "heavy"}]}, "weight of a tenant is not a number"),
    ]
    for changes, message in damages:
        path.write_bytes(orjson.dumps(good | changes))
        with pytest.raises(ResultsError, match=message):
            workplace.cells("out")
    path.write_bytes(sound)
    (cell.dir / "requests.jsonl").unlink()
    done = workplace.run("analyze", "out")
    assert done.returncode == 2
    assert "damaged: the file is missing" in " ".join(done.stdout.split())
