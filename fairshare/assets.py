"""Where the files live that people edit: scenarios, launchers, matrices; and where we may write."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from fairshare.errors import SpecError

KINDS = {"scenario": "scenarios", "launcher": "launchers", "matrix": "matrix"}
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
        if path.is_file():
            return path
        raise SpecError(f"{kind} file {name} does not exist")
    known = names(kind)
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known)) or 'none'}"
    raise SpecError(f"there is no {kind} named {name!r}", hint=hint)


def cache_dir() -> Path:
    """Our own cache (made models, engine facts, compile caches), created 0700 when first used."""
    base = os.environ.get("FAIRSHARE_CACHE_DIR")
    if base:
        path = Path(base)
    else:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fairshare"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def state_dir() -> Path:
    """Locks and journals of running experiments, 0700: what a later start needs to clean up."""
    base = os.environ.get("FAIRSHARE_STATE_DIR")
    if base:
        path = Path(base)
    elif os.geteuid() == 0:
        path = Path("/run/fairshare")
    else:
        path = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "fairshare"
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path
