"""Where we may write: folders that are ours alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fairshare import assets
from fairshare.errors import PreflightError

FOLDERS = pytest.mark.parametrize(
    ("variable", "folder"),
    [
        ("FAIRSHARE_CACHE_DIR", assets.cache_dir),
        ("FAIRSHARE_STATE_DIR", assets.state_dir),
    ],
)


@FOLDERS
def test_a_folder_is_made_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, folder: Callable[[], Path]
) -> None:
    """Caches and journals are readable by their user alone, whatever the umask allows."""
    monkeypatch.setenv(variable, str(tmp_path / "new"))
    before = os.umask(0)
    try:
        made = folder()
    finally:
        os.umask(before)
    assert made == tmp_path / "new"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


@FOLDERS
def test_a_folder_that_others_may_write_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, folder: Callable[[], Path]
) -> None:
    """Compiled code and undo commands are never taken from where anybody can leave them."""
    tmp_path.chmod(0o1777)
    monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(PreflightError, match="others may write") as caught:
        folder()
    assert variable in str(caught.value.hint)


@FOLDERS
def test_a_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, folder: Callable[[], Path]
) -> None:
    """A link in the folder's place, which somebody else may have laid, is refused."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv(variable, str(tmp_path / "link"))
    with pytest.raises(PreflightError, match="is a link"):
        folder()


@FOLDERS
def test_a_folder_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, folder: Callable[[], Path]
) -> None:
    """A folder that belongs to another user is refused, although it is there."""
    monkeypatch.setenv(variable, str(tmp_path))
    if os.geteuid() == 0:
        os.chown(tmp_path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(PreflightError, match="belongs to somebody else"):
        folder()


@FOLDERS
def test_a_folder_that_cannot_be_made_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, folder: Callable[[], Path]
) -> None:
    """A file in the way is an error for people that names the variable to set."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(variable, str(tmp_path / "file"))
    with pytest.raises(PreflightError, match="cannot make") as caught:
        folder()
    assert variable in str(caught.value.hint)


def test_locks_are_where_nobody_can_remove_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder for locks that others may write to must be sticky, and a link is none."""
    monkeypatch.setenv("FAIRSHARE_LOCK_DIR", str(tmp_path))
    tmp_path.chmod(0o1777)
    assert assets.lock_dir() == tmp_path
    tmp_path.chmod(0o777)
    with pytest.raises(PreflightError, match="could remove another's lock"):
        assets.lock_dir()
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setenv("FAIRSHARE_LOCK_DIR", str(tmp_path / "link"))
    with pytest.raises(PreflightError, match="is no folder"):
        assets.lock_dir()


def test_the_folder_for_locks_is_told_by_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first candidate that is everybody's is taken; where there is none, that is said."""
    monkeypatch.delenv("FAIRSHARE_LOCK_DIR", raising=False)
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir(mode=0o755)
    two.mkdir()
    monkeypatch.setattr(assets, "_LOCK_DIRS", (one, two))
    with pytest.raises(PreflightError, match="no folder for the locks"):
        assets.lock_dir()
    two.chmod(0o1777)
    if os.geteuid() == 0:
        assert assets.lock_dir() == two
    one.chmod(0o1777)
    if os.geteuid() == 0:
        assert assets.lock_dir() == one
