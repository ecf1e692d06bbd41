"""systemd units for the day when a run and its reaper die together, as in a power cut."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fairshare import assets

_VARIABLES = ("FAIRSHARE_STATE_DIR", "FAIRSHARE_LOCK_DIR", "XDG_STATE_HOME", "HOME")
_TEMPLATE = """\
# {file}: finish at boot what a run left that was killed together with its reaper.
#   {command} clean --unit > {file}
#   {systemctl} daemon-reload && {systemctl} enable fairshare-clean.service
#
# A sweep that runs as a service of its own is cleaned up after by these lines in its [Service],
# beside the same Environment= as below:
#   ExecStopPost={command} clean
#   KillMode=mixed
#   TimeoutStopSec=60
[Unit]
Description=Undo what killed fairshare runs left behind
After=local-fs.target {after}

[Service]
Type=oneshot
{environment}
ExecStart={command} clean

[Install]
WantedBy={target}
"""


def boot_unit() -> str:
    """The unit for whoever asks: the system's for root, the user's own for anybody else."""
    root = os.geteuid() == 0
    folder = Path("/etc/systemd/system") if root else Path.home() / ".config/systemd/user"
    env = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    env.setdefault("FAIRSHARE_STATE_DIR", str(assets.state_path()))
    env["PATH"] = os.environ.get("PATH", os.defpath)
    return _TEMPLATE.format(
        file=folder / "fairshare-clean.service",
        command=f"{_quoted(sys.executable)} -m fairshare",
        systemctl="systemctl" if root else "systemctl --user",
        after="nvidia-persistenced.service" if root else "",
        environment="\n".join(f"Environment={_quoted(f'{k}={v}')}" for k, v in env.items()),
        target="multi-user.target" if root else "default.target",
    )


def _quoted(word: str) -> str:
    """A word as systemd reads it: % stands for itself, and blanks do not end it."""
    text = word.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"' if set(text) & set(" \t\"'\\") else text
