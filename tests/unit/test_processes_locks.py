"""Locks that all users of a machine share."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from fairshare.processes import locks

T = TypeVar("T")
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder as /run/lock: everybody's, and sticky."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # other users cannot reach tmp_path
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def as_nobody(act: Callable[[], T]) -> T:
    """What ``act`` returns in a process of another user."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        os.write(write_end, pickle.dumps(act()))
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as result:
        data = result.read()
    os.waitpid(pid, 0)
    return pickle.loads(data)  # noqa: S301 - of our own making


def taken(path: Path) -> int:
    """Hold a lock that is known to be free."""
    descriptor = locks.take(path, "a test")
    assert descriptor is not None
    return descriptor


def test_one_holds_it_and_is_known(shared: Path) -> None:
    """A second taker gets nothing; the holder's pid is the kernel's word, its words are shown."""
    path = shared / "x.lock"
    descriptor = taken(path)
    assert locks.take(path, "another") is None
    holder = locks.holder_of(path)
    assert holder is not None
    assert (holder.pid, holder.about) == (os.getpid(), "a test")
    locks.let_go(path, descriptor)
    assert locks.holder_of(path) is None
    assert not path.exists()


@needs_root
def test_two_users_share_one_lock(shared: Path) -> None:
    """Whoever made the file, root or not, the other is kept out while it is held, then gets in."""
    path = shared / "x.lock"
    descriptor = taken(path)
    assert as_nobody(lambda: locks.take(path, "nobody")) is None
    seen = as_nobody(lambda: locks.holder_of(path))
    assert (seen.pid, seen.user, seen.about) == (os.getpid(), "root", "a test")  # type: ignore[union-attr]
    os.close(descriptor)  # as if killed: the file stays, and is root's
    assert as_nobody(lambda: locks.take(path, "nobody")) is not None
    assert path.stat().st_uid == 0
    path.unlink()
    assert as_nobody(lambda: locks.take(path, "nobody")) is not None  # killed, too
    assert path.stat().st_uid == NOBODY
    locks.let_go(path, taken(path))
    assert not path.exists()


@needs_root
def test_the_holder_of_anothers_file_is_known_by_the_kernel(shared: Path) -> None:
    """Where the holder could not write into the file, its pid and command line are still told."""
    path = shared / "x.lock"
    path.write_text(json.dumps({"pid": 1, "since": 0, "about": "a lie"}))
    os.chown(path, NOBODY, NOBODY)

    def hold_and_look() -> locks.Holder | None:
        assert locks.take(path, "mine") is not None
        return locks.holder_of(path)

    path.chmod(0o644)
    os.chown(path, 12345, 12345)
    holder = as_nobody(hold_and_look)
    assert holder is not None
    assert holder.user == "nobody"
    assert "a lie" not in str(holder)
    assert "a lie" in path.read_text()


def test_what_we_did_not_make_is_never_written_to(shared: Path, tmp_path: Path) -> None:
    """A hard link to a precious file in the lock's place loses its name and nothing else."""
    victim = shared / "victim"
    victim.write_text("precious")
    path = shared / "x.lock"
    path.hardlink_to(victim)
    descriptor = taken(path)
    assert victim.read_text() == "precious"
    locks.let_go(path, descriptor)
    assert victim.read_text() == "precious"
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        locks.take(path, "x")
    path.unlink()
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        locks.take(path, "x")
    assert not locks.remove_free(path)


def test_a_removed_file_is_no_lock(shared: Path) -> None:
    """Holding a file that lost its name keeps nobody out, so it is not taken for the lock."""
    path = shared / "x.lock"
    first = taken(path)
    path.unlink()
    second = taken(path)
    assert locks.take(path, "third") is None
    locks.let_go(path, first)
    assert path.exists()
    locks.let_go(path, second)


def test_a_file_that_is_removed_while_it_is_being_locked_is_no_lock(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder may have ended between our opening it and locking it: then it is made anew."""
    path = shared / "x.lock"
    lock = locks._try_lock

    def lock_too_late(descriptor: int) -> bool:
        monkeypatch.setattr(locks, "_try_lock", lock)
        path.unlink()
        return lock(descriptor)

    monkeypatch.setattr(locks, "_try_lock", lock_too_late)
    descriptor = taken(path)
    assert locks.take(path, "second") is None
    locks.let_go(path, descriptor)


def test_only_a_free_lock_is_removed(shared: Path) -> None:
    """What a killed process left goes, what is held stays."""
    path = shared / "x.lock"
    descriptor = taken(path)
    assert not locks.remove_free(path)
    os.close(descriptor)
    assert locks.remove_free(path)
    assert not path.exists()
    assert not locks.remove_free(path)


def test_a_full_disk_is_no_reason_not_to_hold_a_lock(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is what is locked; who holds it the kernel tells as well."""
    path = shared / "x.lock"

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(locks.os, "write", full)
        descriptor = locks.take(path, "words")
    assert descriptor is not None
    holder = locks.holder_of(path)
    assert holder is not None
    assert holder.pid == os.getpid()
    locks.let_go(path, descriptor)
    assert not path.exists()


def test_foreign_words_are_harmless() -> None:
    """Escape sequences and endless text of a lock file do not reach the terminal."""
    shown = locks.plain("\x1b[2J" + "x" * 1000)
    assert "\x1b" not in shown
    assert len(shown) == 200


@pytest.mark.parametrize("said", [b"", b"[]", b'{"pid": "x"}', b'{"pid": 1}', b"\xff"])
def test_a_file_that_says_nothing_is_no_error(said: bytes, shared: Path) -> None:
    """Whatever is in a held file, its holder's pid is told."""
    path = shared / "x.lock"
    descriptor = taken(path)
    path.write_bytes(said)
    holder = locks.holder_of(path)
    assert holder is not None
    assert holder.pid == os.getpid()
    locks.let_go(path, descriptor)
