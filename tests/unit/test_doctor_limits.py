"""What limits of the process mean for a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fairshare.doctor.limits import LimitFacts, check, gather
from tests.doctor_cases import GIB, intent, told

GOOD = LimitFacts(
    open_files=65536,
    processes=None,
    results=Path("results"),
    results_writable=True,
    results_free_bytes=90 * GIB,
    temporary=Path("/tmp"),  # noqa: S108 - looked at only
    temporary_free_bytes=GIB,
    uid=1000,
)


def test_generous_limits_are_fine() -> None:
    """Nothing is said against them."""
    assert set(told(check(GOOD, intent())).values()) == {"ok"}


@pytest.mark.parametrize(
    ("changes", "name", "level"),
    [
        ({"open_files": 1024}, "open files", "warn"),
        ({"open_files": 64}, "open files", "fail"),
        ({"processes": 1000}, "processes", "warn"),
        ({"processes": 10}, "processes", "fail"),
        ({"results_writable": False}, "disk", "fail"),
        ({"results_free_bytes": 1024}, "disk", "fail"),
        ({"results_free_bytes": GIB // 2}, "disk", "warn"),
        ({"results_free_bytes": None}, "disk", "warn"),
        ({"temporary": None}, "temporary", "fail"),
        ({"temporary_free_bytes": 0}, "temporary", "fail"),
        ({"temporary": Path("/a/folder/of/many/letters/in/its/name")}, "temporary", "warn"),
    ],
)
def test_each_limit_has_its_line(changes: dict[str, Any], name: str, level: str) -> None:
    """What is too tight is told with what loosens it."""
    assert told(check(replace(GOOD, **changes), intent()))[name] == level


def test_looking_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results folder is judged by the nearest that is there, and is not made."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = gather(intent(folder=tmp_path / "new" / "results"))
    assert found.results_writable
    assert found.temporary == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_of_results_is_found(tmp_path: Path) -> None:
    """A path through a file cannot become a folder."""
    (tmp_path / "file").write_text("")
    assert not gather(intent(folder=tmp_path / "file" / "results")).results_writable
