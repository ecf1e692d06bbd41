"""Puts our plugins where vLLM finds them: a private folder on its path, and nothing else in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import fairshare
from fairshare.spec.launcher import Engine, Launcher

REPORTS_VARIABLE = "FAIRSHARE_SHARE_REPORTS"
SOCKET_VARIABLE = "FAIRSHARE_REQUEST_SOCKET"
SCHEDULER_VARIABLE = "FAIRSHARE_SCHEDULER"
DECISIONS_VARIABLE = "FAIRSHARE_SCHEDULER_DECISIONS"

# Not "fairshare": the engine's interpreter may have fairshare itself, which must stay what it is.
PACKAGE = "fairshare_vllm_plugins"
_SOURCE = Path(fairshare.__file__).parent
_COPIED = {  # our packages that know nothing but the standard library, and their names there
    "fairshare.vllm_plugins": PACKAGE,
    "fairshare.scheduling": f"{PACKAGE}.scheduling",
}
_ENTRY_POINTS = {  # vLLM's groups: name of the plugin to its function
    "vllm.general_plugins": {
        "fairshare_share_report": f"{PACKAGE}.share_report:register",
        "fairshare_request_socket": f"{PACKAGE}.request_socket:register",
    },
    "vllm.platform_plugins": {"fairshare_mig_devices": f"{PACKAGE}.mig_devices:register"},
}


def plugins_env(launcher: Launcher, chosen: Mapping[str, str], run_dir: Path) -> dict[str, str]:
    """What makes vLLM load our plugins; nothing for other engines.

    ``chosen`` is the environment so far: a path and a list of allowed plugins keep what they have.
    """
    env = {  # paths in the server's private folder
        name: str(run_dir / chosen[name])
        for name in (SOCKET_VARIABLE, DECISIONS_VARIABLE)
        if name in chosen
    }
    if launcher.engine is not Engine.VLLM:
        return env
    paths = [path for path in (chosen.get("PYTHONPATH"), str(_folder(run_dir))) if path]
    env |= {"PYTHONPATH": ":".join(paths), REPORTS_VARIABLE: str(reports_dir(run_dir))}
    allowed = chosen.get("VLLM_PLUGINS")
    if allowed is not None:
        names = [name for group in _ENTRY_POINTS.values() for name in group]
        env["VLLM_PLUGINS"] = ",".join([*filter(None, allowed.split(",")), *names])
    return env


def socket_env() -> dict[str, str]:
    """What makes vLLM take requests without HTTP as well, at a socket in its private folder."""
    return {SOCKET_VARIABLE: "requests.sock"}


def reports_dir(run_dir: Path) -> Path:
    """Where a server's engine writes what it sees of its share."""
    return run_dir / "reports"


def write_plugins(run_dir: Path) -> None:
    """Write the plugins and their metadata into a server's private folder (anew, if need be)."""
    folder = _folder(run_dir)
    metadata = folder / f"{PACKAGE}-{fairshare.__version__}.dist-info"
    for path in (folder, metadata, reports_dir(run_dir)):
        path.mkdir(mode=0o700, exist_ok=True)
    for ours, theirs in _COPIED.items():
        _copy(_SOURCE / ours.partition(".")[2], folder.joinpath(*theirs.split(".")))
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {fairshare.__version__}\n", "utf-8"
    )
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {function}" for name, function in plugins.items())])
        for group, plugins in _ENTRY_POINTS.items()
    ]
    (metadata / "entry_points.txt").write_text("\n\n".join(groups) + "\n", "utf-8")


def _copy(source: Path, target: Path) -> None:
    """A package of ours under its name there, by which its modules import each other, too."""
    target.mkdir(mode=0o700, exist_ok=True)
    for module in source.glob("*.py"):
        text = module.read_text("utf-8")
        for ours, theirs in _COPIED.items():
            text = text.replace(ours, theirs)
        (target / module.name).write_text(text, "utf-8")


def _folder(run_dir: Path) -> Path:
    return run_dir / "plugins"
