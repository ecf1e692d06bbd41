"""Who holds the GPU's device files open: a reset, or a change of MIG mode, waits for them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fairshare.doctor.finding import Finding, fail, ok, warn
from fairshare.doctor.intent import Intent
from fairshare.processes.table import all_pids, read_row

# Names as /proc shows them (15 characters), and what ends them.
_MONITORS = {
    "nv-hostengine": "sudo systemctl stop nvidia-dcgm",
    "dcgm-exporter": "sudo systemctl stop dcgm-exporter",
    "dcgm": "sudo systemctl stop nvidia-dcgm",
    "nvsm": "sudo systemctl stop nvsm",
    "nvidia-persiste": "sudo systemctl stop nvidia-persistenced",
    "nv-fabricmanag": "sudo systemctl stop nvidia-fabricmanager",
}
_DESKTOP = ("Xorg", "X", "Xwayland", "gnome-shell", "kwin", "plasmashell", "gdm", "sddm", "weston")
_NO_DESKTOP = "sudo systemctl isolate multi-user.target"


@dataclass(frozen=True, slots=True)
class HolderFacts:
    """``holders`` are pids and names; ``everyone`` says that processes of all users were seen."""

    holders: Mapping[int, str] = field(default_factory=dict)
    everyone: bool = True
    drm_users: int | None = None


def gather(intent: Intent, root: Path = Path("/")) -> HolderFacts:
    """Read whose descriptors lead to ``/dev/nvidia*``."""
    del intent
    holders = {}
    for pid in all_pids():
        if pid != os.getpid() and _holds(root / "proc" / str(pid) / "fd"):
            row = read_row(pid)
            holders[pid] = row.name if row else "gone"
    try:
        drm_users = int((root / "sys/module/nvidia_drm/refcnt").read_text("ascii"))
    except (OSError, ValueError):
        drm_users = None
    return HolderFacts(holders, os.geteuid() == 0, drm_users)


def check(facts: HolderFacts, *, changes_mode: bool) -> Iterator[Finding]:
    """What the holders mean; ``changes_mode``: MIG mode is about to be switched."""
    name, seen = "device files", "" if facts.everyone else " (of your own processes)"
    desktop = {pid: who for pid, who in facts.holders.items() if who.startswith(_DESKTOP)}
    others = {pid: who for pid, who in facts.holders.items() if pid not in desktop}
    if desktop:
        says = f"a desktop draws on the GPU: {_list(desktop)}"
        yield (fail if changes_mode else warn)("desktop", says, _NO_DESKTOP)
    if facts.drm_users and changes_mode:
        says = f"nvidia_drm is in use ({facts.drm_users}), which may keep MIG mode pending"
        yield warn("nvidia_drm", says, _NO_DESKTOP)
    if others and changes_mode:
        says = f"held open by {_list(others)}: MIG mode would stay pending"
        yield fail(name, says, "; ".join(dict.fromkeys(_ender(p, w) for p, w in others.items())))
    elif others:
        yield ok(name, f"held open by {_list(others)}{seen}")
    elif not desktop:
        yield ok(name, f"held open by nobody{seen}")


def _holds(folder: Path) -> bool:
    try:
        descriptors = list(folder.iterdir())
    except OSError:
        return False  # gone, or another user's
    for descriptor in descriptors:
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.startswith("/dev/nvidia"):
            return True
    return False


def _list(holders: Mapping[int, str]) -> str:
    return ", ".join(f"{name} (pid {pid})" for pid, name in holders.items())


def _ender(pid: int, name: str) -> str:
    for start, command in _MONITORS.items():
        if name.startswith(start):
            return command
    return f"sudo kill {pid}"
