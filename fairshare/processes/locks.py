"""Locks that all users of a machine share: one file each, told apart from planted ones.

A lock is held with ``flock``, which works on a file that may only be read and falls with its
holder, however that ends. It counts only while the file still has its name, so that a holder may
remove it at its end. We write into no file that we have not just made: whoever finds an old one
replaces it, or, where it is another user's, holds it as it is.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairshare import assets
from fairshare.processes.table import command_line, read_row, started_at, user_of

_LOCKS = Path("/proc/locks")
_PREFIX = "fairshare-"
_READ_BYTES = 4096
_TEXT_LENGTH = 200
_PATIENCE_S = 0.2
_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock; ``about`` is its own words, or its command line. ``since``: epoch s."""

    pid: int | None
    user: str | None
    since: float | None
    about: str

    def __str__(self) -> str:
        parts = [] if self.pid is None else [f"pid {self.pid}"]
        parts += [] if self.user is None else [f"of {self.user}"]
        if self.since is not None:
            parts.append(time.strftime("since %Y-%m-%d %H:%M:%S", time.localtime(self.since)))
        return " ".join(parts or ["somebody"]) + (f", {self.about}" if self.about else "")


def take(path: Path, about: str) -> int | None:
    """Hold the lock; its descriptor, or None where somebody else holds it.

    ``about`` is shown to whoever meets the lock. No child inherits the descriptor.

    Raises:
        OSError: the file cannot be made or opened, or is none that a lock could be.
    """
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        descriptor, made = _open(path)
        if not _try_lock(descriptor):
            os.close(descriptor)
            if time.monotonic() > deadline_s:
                return None
            time.sleep(_PAUSE_S)  # somebody may only be looking whether it is held
            continue
        if made and _is_named(descriptor, path):
            holder = {"pid": os.getpid(), "since": time.time(), "about": about}
            with contextlib.suppress(OSError):  # no space: it is held without its words
                os.write(descriptor, json.dumps(holder).encode()[:_READ_BYTES])
            return descriptor
        if _is_named(descriptor, path) and not _remove(descriptor, path):
            return descriptor
        os.close(descriptor)


def let_go(path: Path, descriptor: int) -> None:
    """End holding the lock; its file goes too where it is ours."""
    with contextlib.suppress(OSError):
        _remove(descriptor, path)
    # Closing alone would wait for a child that is between its fork and its exec.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def remove_free(path: Path) -> bool:
    """Remove a lock file that a killed process left; False where it is held or not ours."""
    try:
        descriptor = _open_existing(path)
    except OSError:
        return False
    try:
        held_by_us = _try_lock(descriptor) and _is_named(descriptor, path)
        return held_by_us and _remove(descriptor, path)
    finally:
        os.close(descriptor)


def holder_of(path: Path) -> Holder | None:
    """Who holds the lock now, None if nobody does or there is no such file.

    The pid is the kernel's word; what the file says counts only if it is that process's own.
    """
    try:
        descriptor = _open_existing(path)
    except FileNotFoundError:
        return None
    except OSError:
        return Holder(None, None, None, "")
    try:
        status = os.fstat(descriptor)
        pid = _pid_of(status)
        # The kernel does not tell of holders in other containers.
        if pid is None and _try_lock(descriptor, fcntl.LOCK_SH):
            return None
        said = _said(os.pread(descriptor, _READ_BYTES, 0))
    finally:
        os.close(descriptor)
    return _described(said["pid"] if pid is None and said else pid, status.st_uid, said)


def plain(text: str) -> str:
    """Another's words made harmless for a terminal: one short line of printable characters."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= _TEXT_LENGTH else f"{shown[: _TEXT_LENGTH - 3]}..."


def _open(path: Path) -> tuple[int, bool]:
    """The lock file's descriptor, and whether it was made for this."""
    # Not O_CREAT alone: in a sticky folder the kernel refuses it for a file of another user.
    while True:
        with contextlib.suppress(FileNotFoundError):
            return _open_existing(path), False
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, flags, 0o644)
            os.fchmod(descriptor, 0o644)  # whatever the umask: others must be able to lock it
            return descriptor, True


def _open_existing(path: Path) -> int:
    # A planted FIFO would block an open that waits.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def _try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one that the path names."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _remove(descriptor: int, path: Path) -> bool:
    """Remove the lock file, which we hold, unless it is another user's."""
    if os.geteuid() not in (0, os.fstat(descriptor).st_uid) or not _is_named(descriptor, path):
        return False
    try:
        path.unlink()
    except PermissionError:
        return False
    return True


def _pid_of(status: os.stat_result) -> int | None:
    """The process that holds a lock on a file, as the kernel tells it."""
    try:
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for fields in map(str.split, lines):
        # number: FLOCK ADVISORY WRITE pid major:minor:inode start end
        if len(fields) == 8 and fields[1] == "FLOCK" and fields[5] == device:
            return int(fields[4]) if int(fields[4]) > 0 else None
    return None


def _said(raw: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(raw)
        return {
            "pid": int(said["pid"]),
            "since": float(said["since"]),
            "about": plain(str(said["about"])),
        }
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _described(pid: int | None, file_uid: int, said: dict[str, Any] | None) -> Holder:
    if pid is None or read_row(pid) is None:
        return Holder(None, None, None, said["about"] if said else "")
    uid = user_of(pid)
    if said and said["pid"] == pid and uid in (file_uid, None):
        return Holder(pid, user_name(file_uid), said["since"], said["about"])
    since = started_at(pid)
    return Holder(pid, None if uid is None else user_name(uid), since, plain(command_line(pid)))


def user_name(uid: int) -> str:
    """A user's name, or the number of one that has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def path_of(name: str) -> Path:
    """The lock of this name, the same for all users of the machine.

    Raises:
        PreflightError: there is no folder for locks.
    """
    return assets.lock_dir() / f"{_PREFIX}{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.lock"


def existing() -> list[Path]:
    """The lock files that there are, held or not.

    Raises:
        PreflightError: there is no folder for locks.
    """
    return sorted(assets.lock_dir().glob(f"{_PREFIX}*.lock"))
