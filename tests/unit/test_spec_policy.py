"""What a user writes under ``policies:``, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairshare.errors import SpecError
from fairshare.records import Scheduling
from fairshare.spec.loading import load
from fairshare.spec.matrix import Matrix


def matrix(tmp_path: Path, policies: str) -> Matrix:
    """A matrix file with this line."""
    path = tmp_path / "m.yaml"
    path.write_text(f"name: m\nscenarios: [s]\n{policies}\n")
    return load(path, Matrix)


def test_a_policy_is_a_name_or_a_name_with_options(tmp_path: Path) -> None:
    """Both are understood, and people see the options behind the name."""
    found = matrix(tmp_path, "policies: [fcfs, {kind: rpm, limit: 30}]\nscheduling: [gateway]")
    assert [policy.label for policy in found.policies] == ["fcfs", "rpm(limit=30)"]
    assert found.policies[1].options == {"limit": 30}
    assert found.scheduling == [Scheduling.GATEWAY]


def test_names_of_artifacts_are_understood(tmp_path: Path) -> None:
    """What VTC's artifact calls its first come, first served is ours."""
    (policy,) = matrix(tmp_path, "policies: [slora]").policies
    assert policy.label == "slora"
    assert policy.is_fcfs


@pytest.mark.parametrize(
    ("line", "place", "said"),
    [
        ("policies: [fcfs, rmp]", ":3:18:", "did you mean rpm?"),
        ("policies: [{kind: rpm, limt: 3}]", ":3:30:", "did you mean limit?"),
        ("policies: [{kind: rpm, limit: many}]", ":3:31:", "option limit of policy rpm"),
        ("policies: [{limit: 3}]", ":3:12:", "kind"),
        ("policies: []", ":3:11:", "at least 1"),
        ("policies: [fcfs, {kind: fcfs}]", ":1:1:", "policies names something twice"),
        ("scheduling: [gatewy]", ":3:14:", "'gateway'"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, line: str, place: str, said: str) -> None:
    """File, line and column, and what was probably meant."""
    with pytest.raises(SpecError) as caught:
        matrix(tmp_path, line)
    assert place in str(caught.value)
    assert said in str(caught.value)


def test_a_policy_survives_being_written_down(tmp_path: Path) -> None:
    """What a result folder keeps of a request gives the same policies again."""
    found = matrix(tmp_path, "policies: [{kind: rpm, limit: 30}, fcfs]")
    again = Matrix.model_validate(found.model_dump(mode="json", exclude_unset=True))
    assert again.policies == found.policies
