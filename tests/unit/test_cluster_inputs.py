"""What travels to the nodes of a cluster: files and flags, as they are where the command is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.cluster.inputs import inputs_of, kind_asked, unfold
from fairshare.errors import SpecError
from fairshare.runner.inputs import input_digests
from fairshare.runner.settings import Flags
from fairshare.spec.launcher import DeviceKind
from fairshare.spec.matrix import Matrix

SCENARIO = """\
name: s
timing: {warmup_s: 1, window_s: 5, drain_s: 9}
tenants:
  - name: a
    prompts: {kind: jsonl, path: %s}
    output: {kind: fixed, tokens: 8}
"""


def matrix_of(folder: Path, path: str) -> Matrix:
    """A sweep over one scenario whose prompts are in a file."""
    (folder / "s.yaml").write_text(SCENARIO % path)
    return Matrix.model_validate({"name": "m", "scenarios": [str(folder / "s.yaml")]})


@pytest.mark.parametrize("path", ["p.jsonl", "words/p.jsonl", "../p.jsonl", "a/../../../p.jsonl"])
def test_files_lie_as_the_scenario_names_them(tmp_path: Path, path: str) -> None:
    """Also where the path climbs: it is the same file by the same name, below one folder."""
    home, node = tmp_path / "x" / "y" / "z" / "home", tmp_path / "node"
    (home / "a").mkdir(parents=True)
    (home / path).parent.mkdir(exist_ok=True)
    (home / path).write_text('{"prompt": "one"}\n')
    inputs = inputs_of(matrix_of(home, path), Flags(), DeviceKind.VIRTUAL)
    there = unfold(inputs, "s", node)
    (scenario,) = inputs.scenarios
    assert input_digests(scenario, there.parent) == input_digests(scenario, home)
    files = [each for each in tmp_path.rglob("p.jsonl") if home.parents[2] not in each.parents]
    assert all(node in each.parents for each in files)


def test_a_missing_file_is_told_before_anything_starts(tmp_path: Path) -> None:
    """With its path here, not on some node."""
    with pytest.raises(SpecError, match=r"words/p\.jsonl cannot be read"):
        inputs_of(matrix_of(tmp_path, "words/p.jsonl"), Flags(), DeviceKind.VIRTUAL)


def test_one_gpu_cannot_be_named_for_many_machines(tmp_path: Path) -> None:
    """Ray gives the GPUs out; the kind of device can be named."""
    matrix = matrix_of(tmp_path, "p.jsonl")
    for flags in (Flags(gpu="0"), Flags(device="cuda:1")):
        with pytest.raises(SpecError, match="a cluster has many"):
            kind_asked(matrix, flags)
    assert kind_asked(matrix, Flags(device="virtual:h200")) is DeviceKind.VIRTUAL
    assert kind_asked(matrix, Flags()) is None
