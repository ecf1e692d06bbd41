"""One run at a time writes into a result folder."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from fairshare.errors import ResultsError
from fairshare.results.ownership import sole_writer


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    """Two sweeps on two devices do not write the same cells."""
    folder = tmp_path / "results" / "night"
    refused = pytest.raises(ResultsError, match="another run writes into")
    with sole_writer(folder), refused, sole_writer(folder):
        pass
    with sole_writer(folder):
        assert list(folder.iterdir()) == []


def test_a_file_system_without_locks_keeps_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results may lie on a file system that knows no locks."""

    def unknown(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", unknown)
    with sole_writer(tmp_path):
        pass
