"""The folder that makes an engine in another interpreter load our plugins."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

from fairshare.serving import plugins
from fairshare.serving.plugins import plugins_env, write_plugins
from fairshare.spec.launcher import Launcher
from fairshare.vllm_plugins import request_socket, share_report

ASK = """
import importlib.metadata as metadata, json, sys
found = [p for g in sys.argv[1:] for p in metadata.entry_points(group=g)]
loaded = [p.load().__module__ for p in found]
import fairshare_vllm_plugins.fair_queue as queue, fairshare_vllm_plugins.scheduling.told as told
loaded += [type(told.policy_told('{"policy": "fcfs"}')).__module__, queue.Request.__module__]
print(json.dumps([{p.name: p.group for p in found}, loaded, "fairshare" in sys.modules]))
"""


def launcher(engine: str = "vllm") -> Launcher:
    """A launcher of that engine."""
    return Launcher.model_validate({"name": "x", "engine": engine, "command": ["run"]})


def test_another_interpreter_finds_and_loads_them(tmp_path: Path) -> None:
    """Without fairshare or any site-packages, the entry points are found and can be loaded."""
    write_plugins(tmp_path)
    write_plugins(tmp_path)  # a server that is started again has its folder already
    env = plugins_env(launcher(), {}, tmp_path)
    groups = ["vllm.general_plugins", "vllm.platform_plugins"]
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", ASK, *groups],
        env={**os.environ, **env},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    found, loaded, has_fairshare = json.loads(done.stdout)
    assert found == {
        "fairshare_share_report": "vllm.general_plugins",
        "fairshare_request_socket": "vllm.general_plugins",
        "fairshare_mig_devices": "vllm.platform_plugins",
    }
    assert all(module.startswith("fairshare_vllm_plugins.") for module in loaded)
    assert not has_fairshare


def test_the_folder_is_private_and_holds_nothing_else(tmp_path: Path) -> None:
    """What comes first on the engine's path can shadow nothing of the engine's."""
    write_plugins(tmp_path)
    folder = tmp_path / "plugins"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    names = sorted(path.name.partition("-")[0] for path in folder.iterdir())
    assert names == ["fairshare_vllm_plugins"] * 2


def test_a_path_and_an_allow_list_keep_what_they_have(tmp_path: Path) -> None:
    """A launcher's own PYTHONPATH and VLLM_PLUGINS are added to, even an empty list."""
    env = plugins_env(launcher(), {"PYTHONPATH": "/mine", "VLLM_PLUGINS": "a,b"}, tmp_path)
    assert env["PYTHONPATH"] == f"/mine:{tmp_path}/plugins"
    ours = "fairshare_share_report,fairshare_request_socket,fairshare_mig_devices"
    assert env["VLLM_PLUGINS"] == f"a,b,{ours}"
    env = plugins_env(launcher(), {"VLLM_PLUGINS": ""}, tmp_path)
    assert env["VLLM_PLUGINS"] == ours
    assert "VLLM_PLUGINS" not in plugins_env(launcher(), {}, tmp_path)


def test_other_engines_get_nothing(tmp_path: Path) -> None:
    """Only vLLM knows these plugins."""
    assert plugins_env(launcher("sglang"), {}, tmp_path) == {}


def test_both_sides_name_the_folder_of_reports_alike(tmp_path: Path) -> None:
    """The variable that is set is the one that the plugin reads."""
    assert plugins.REPORTS_VARIABLE == share_report.REPORTS_VARIABLE
    assert share_report.REPORTS_VARIABLE in plugins_env(launcher(), {}, tmp_path)


def test_a_socket_is_made_where_it_is_asked_for(tmp_path: Path) -> None:
    """Requests without HTTP come to the server's private folder, and only if a slot asks."""
    assert plugins.SOCKET_VARIABLE == request_socket.SOCKET_VARIABLE
    assert plugins.SOCKET_VARIABLE not in plugins_env(launcher(), {}, tmp_path)
    env = plugins_env(launcher(), plugins.socket_env(), tmp_path)
    assert Path(env[plugins.SOCKET_VARIABLE]).parent == tmp_path
