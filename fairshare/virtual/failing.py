"""The failure knobs of the simulated GPU (``docs/virtual-gpu.md`` lists them).

A knob is ``NAME`` or ``NAME=VALUE``, in the variable FAIRSHARE_VIRTUAL_FAIL or in the file ``fail``
of the GPU's folder, where a running program sees it too. In the file ``:N`` behind a knob makes it
work N times. Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from fairshare.virtual.state import STATE_ENV

FAIL_ENV = "FAIRSHARE_VIRTUAL_FAIL"
FAIL_FILE = "fail"
KNOBS = frozenset(
    {
        "driver_missing", "smi_slow", "smi_hang", "smi_hang_after", "list_no_permission",
        "mig_pending", "mig_in_use", "mig_timeout", "mig_no_permission", "mode_lies",
        "cgi_no_permission", "cgi_insufficient", "cgi_partial",
        "dci_in_use", "dgi_in_use", "dci_lies", "dgi_lies",
        "compute_mode_no_permission", "timeslice_no_permission", "clocks_no_permission",
        "clocks_slowed",
        "mps_no_start", "mps_ignores_percentage", "mps_ignores_memory_limit",
        "server_dies_at_start", "server_never_ready", "server_leaks_child", "server_slow",
        "server_out_of_memory", "server_dies_after", "server_hangs_after", "server_breaks_after",
        "server_out_of_memory_after",
    }
)  # fmt: skip
_COUNT = re.compile(r":(\d+)$")


def fails(name: str, *about: str, directory: Path | None = None) -> bool:
    """Whether a knob makes this fail now; one use of a counted knob is then used up.

    Args:
        name: the knob.
        about: what is going on; a knob with a value works only if the value is among them.
        directory: the GPU's folder, by default the one that the environment names.
    """
    if any(_means(knob, name, about) for knob in _split(os.environ.get(FAIL_ENV, ""))):
        return True
    folder = directory or _folder()
    if folder is None:
        return False
    return _use(folder / FAIL_FILE, lambda knob: _means(knob, name, about)) is not None


def take(name: str) -> str | None:
    """The value of a knob ("" without one), None if it is off; one use of a counted one is used."""
    in_environment = _split(os.environ.get(FAIL_ENV, ""))
    knob = next((each for each in in_environment if _name(each) == name), None)
    if knob is None and (folder := _folder()) is not None:
        knob = _use(folder / FAIL_FILE, lambda each: _name(each) == name)
    return None if knob is None else knob.partition("=")[2]


def unknown_knobs(directory: Path) -> list[str]:
    """What is switched on and does not exist, so that a slip is not taken for a success."""
    names = (_name(_COUNT.sub("", knob)) for knob in _all(directory))
    return sorted(set(names) - KNOBS)


def _folder() -> Path | None:
    named = os.environ.get(STATE_ENV)
    return Path(named) if named else None


def _all(folder: Path | None) -> Iterator[str]:
    yield from _split(os.environ.get(FAIL_ENV, ""))
    if folder is not None:
        try:
            yield from _split((folder / FAIL_FILE).read_text(encoding="utf-8"))
        except OSError:
            return


def _use(path: Path, wanted: Callable[[str], bool]) -> str | None:
    """The first knob of the file that is wanted, without its count, which goes down by one."""
    try:
        file = path.open("r+", encoding="utf-8")
    except OSError:
        return None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        knobs = _split(file.read())
        for position, counted in enumerate(knobs):
            knob = _COUNT.sub("", counted)
            if not wanted(knob):
                continue
            if count := _COUNT.search(counted):
                left = int(count[1]) - 1
                knobs[position : position + 1] = [f"{knob}:{left}"] * (left > 0)
                file.seek(0)
                file.truncate()
                file.write("\n".join(knobs))
            return knob
    return None


def _name(knob: str) -> str:
    return knob.partition("=")[0]


def _means(knob: str, name: str, about: tuple[str, ...]) -> bool:
    found, _, value = knob.partition("=")
    return found == name and (not value or value in about)


def _split(text: str) -> list[str]:
    return [knob for knob in re.split(r"[,\s]+", text) if knob]
