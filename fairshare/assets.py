"""Where the files live that people edit: scenarios, launchers, matrices; and where we may write."""

from __future__ import annotations

import contextlib
import difflib
import os
import stat
from pathlib import Path

from fairshare import users
from fairshare.errors import PreflightError, SpecError

KINDS = {"scenario": "scenarios", "launcher": "launchers", "matrix": "matrix"}
_LOCK_DIRS = (Path("/run/lock"), Path("/tmp"))  # noqa: S108 - sticky, and nobody's alone
_PACKAGE = Path(__file__).resolve().parent


def shipped_dir(kind: str) -> Path:
    """The folder of shipped files of a kind: inside the wheel, else in the checkout."""
    folder = KINDS[kind]
    built_in = _PACKAGE / "_builtin" / folder
    return built_in if built_in.is_dir() else _PACKAGE.parent / folder


def search_path(kind: str) -> list[Path]:
    """Folders searched for a name, in order: the working folder's own, then the shipped ones."""
    own = Path.cwd() / KINDS[kind]
    return [own, shipped_dir(kind)] if own != shipped_dir(kind) else [own]


def names(kind: str) -> dict[str, Path]:
    """Every name of a kind that can be used here, with the file it stands for."""
    found: dict[str, Path] = {}
    for folder in search_path(kind):
        for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else ():
            found.setdefault(path.stem, path)
    return found


def find(kind: str, name: str) -> Path:
    """The file of a scenario, launcher or matrix, by path or by name.

    Raises:
        SpecError: nothing of that name or path exists; the hint names the closest match.
    """
    looks_like_path = "/" in name or name.endswith((".yaml", ".yml"))
    if looks_like_path:
        path = Path(name).expanduser()
        try:
            if path.is_file():
                return path
            problem = "is not a file" if path.exists() else "does not exist"
        except OSError as error:  # a name that no file system takes
            problem = f"cannot be read: {error.strerror}"
        raise SpecError(f"{kind} file {name} {problem}")
    known = names(kind)
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known)) or 'none'}"
    raise SpecError(f"there is no {kind} named {name!r}", hint=hint)


def cache_dir() -> Path:
    """Our own cache (made models, engine facts, compile caches), made 0700 when first used.

    Raises:
        PreflightError: it cannot be made, or others could put something into it.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return _private_dir("FAIRSHARE_CACHE_DIR", Path(base) / "fairshare")


def state_dir() -> Path:
    """Journals of running experiments, 0700: what a later start needs to clean up.

    Raises:
        PreflightError: it cannot be made, or others could put something into it.
    """
    with users.as_root():
        return _private_dir("FAIRSHARE_STATE_DIR", state_path())


def state_path() -> Path:
    """Where `state_dir` is, made or not: root's also for whoever called sudo."""
    # Not below /run: a GPU's MIG mode may survive a reboot, and so must what undoes it.
    usual = Path("/var/lib/fairshare") if users.has_root() else _own_state_path()
    return _named_path("FAIRSHARE_STATE_DIR", usual)


def own_state_dir() -> Path:
    """As `state_dir`, for what servers must reach: the user's own also for whoever called sudo.

    Raises:
        PreflightError: it cannot be made, or others could put something into it.
    """
    return _private_dir("", own_state_path()) if users.stepped_back() else state_dir()


def own_state_path() -> Path:
    """Where `own_state_dir` is, made or not."""
    return _own_state_path() if users.stepped_back() else state_path()


def _own_state_path() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "fairshare"


def lock_dir() -> Path:
    """Where all users of this machine lock its devices, or the folder in FAIRSHARE_LOCK_DIR.

    The same for everybody, so it is told by what the folders are and not by who asks: the first
    that belongs to root, takes everybody's files, and lets nobody remove another's.

    Raises:
        PreflightError: there is none, or the named one could be tampered with.
    """
    if os.environ.get("FAIRSHARE_LOCK_DIR"):
        return _lock_dir_named(_named_path("FAIRSHARE_LOCK_DIR", _LOCK_DIRS[0]))
    for path in _LOCK_DIRS:
        with contextlib.suppress(OSError):
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == 0 and _is_shared(status.st_mode):
                return path
    known = ", ".join(map(str, _LOCK_DIRS))
    raise PreflightError(
        f"no folder for the locks of devices: none of {known} is root's, writable for all and "
        "sticky",
        hint="FAIRSHARE_LOCK_DIR names one; it must be the same for all users",
    )


def _lock_dir_named(path: Path) -> Path:
    hint = "FAIRSHARE_LOCK_DIR names another folder"
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = path.lstat()
    except OSError as error:
        raise PreflightError(
            f"cannot make the folder {path}: {error.strerror}", hint=hint
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        raise PreflightError(f"{path} is no folder", hint=hint)
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
        raise PreflightError(
            f"in {path} anybody could remove another's lock", hint=f"chmod +t {path}, or {hint}"
        )
    return path


def _is_shared(mode: int) -> bool:
    return bool(mode & stat.S_ISVTX) and bool(mode & stat.S_IWOTH)


def _named_path(variable: str, usual: Path) -> Path:
    return Path(os.environ.get(variable) or usual).expanduser().absolute()


def _private_dir(variable: str, usual: Path) -> Path:
    """The folder that a variable names, else the usual one.

    What lies in it is run: undo commands of journals, compiled code of engines. So nobody else may
    own it or write to it, and a link could lead to where somebody else does.
    """
    path = _named_path(variable, usual)
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise PreflightError(
            f"cannot make the folder {path}: {error.strerror}",
            hint=f"{variable} names another folder",
        ) from None
    check_private(path, variable)
    return path


def check_private(path: Path, variable: str) -> None:
    """Make sure that a folder which is there is no link, and nobody else's to write to.

    Raises:
        PreflightError: it is not so; the hint says that ``variable`` names another folder.
    """
    hint = f"{variable} names another folder"
    try:
        status = path.lstat()
    except OSError as error:
        raise PreflightError(f"cannot see the folder {path}: {error.strerror}", hint=hint) from None
    if stat.S_ISLNK(status.st_mode):
        raise PreflightError(
            f"{path} is a link, which is not followed", hint=f"{hint}: the one that is meant"
        )
    if status.st_uid not in (0, os.geteuid()):
        raise PreflightError(f"the folder {path} belongs to somebody else", hint=hint)
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PreflightError(
            f"others may write to the folder {path}", hint=f"chmod go-w {path}, or {hint}"
        )
