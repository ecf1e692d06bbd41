"""The command line and environment of a server."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fairshare.devices.device import Device
from fairshare.errors import SpecError
from fairshare.serving.caches import CompileCache
from fairshare.serving.command import ServerCommand, server_command
from fairshare.serving.models import ModelFacts
from fairshare.serving.placeholders import values_of
from fairshare.sharing.mps_control import PIPE_VARIABLE
from fairshare.sharing.plan import Slot
from fairshare.spec.launcher import DeviceKind, Launcher
from fairshare.spec.loading import load_launcher

MODEL = ModelFacts("m", "/models/m", "m", 512, 8192, 4096, None, (1,))
GPU = Device(DeviceKind.CUDA, "GPU-1", "NVIDIA A100", 40 * 1024**3, index=0, sm_count=108)


def _launcher(**changes: Any) -> Launcher:
    values = {"name": "x", "engine": "vllm", "command": ["run", "--name", "{served_model}"]}
    return Launcher.model_validate(values | changes)


def _command(
    launcher: Launcher,
    caller: dict[str, str] | None = None,
    model: ModelFacts = MODEL,
    **slot: Any,
) -> ServerCommand:
    return server_command(
        launcher,
        Slot(**({"name": "a", "tenants": ("a",), "model": "m"} | slot)),
        model,
        device=GPU,
        port=1234,
        run_dir=Path("/private/a"),
        python="/engine/python",
        caller=caller or {},
    )


def _pairs(command: ServerCommand) -> dict[str, str]:
    return dict(zip(command.argv, command.argv[1:], strict=False))


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"max_model_len": 2048}, ["--max-model-len", "2048"]),
        ({"enforce_eager": True}, ["--enforce-eager"]),
        ({"enable_prefix_caching": False}, ["--no-enable-prefix-caching"]),
        ({"dtype": None}, []),
        ({"sizes": [1, 2]}, ["--sizes", "1", "2"]),
        ({"kv": "{kv_bytes}"}, ["--kv", "32"]),
    ],
)
def test_args_become_flags(args: dict[str, Any], expected: list[str]) -> None:
    """Each kind of value becomes the flag form that the launcher's schema states."""
    kv_bytes = 64 if "kv" in args else None
    command = _command(_launcher(args=args, kv_bytes=kv_bytes), memory_fraction=0.5)
    assert list(command.argv[3:]) == expected


def test_the_schema_names_every_placeholder() -> None:
    """The launcher's description, which editors show, lists all placeholders and no others."""
    slot = Slot(name="a", tenants=("a",), model="m")
    values = values_of(
        _launcher(), slot, MODEL, device=GPU, port=1, run_dir=Path(), python="python"
    )
    assert set(re.findall(r"\{([a-z_]+)\}", Launcher.__doc__ or "")) == set(values)


def test_vllm_cpu_gets_its_share() -> None:
    """On the CPU a slot's threads and its fraction of the KV cache reach the server."""
    launcher, _ = load_launcher("vllm-cpu")
    command = _command(launcher, cpu_set=(1,), threads=1, memory_fraction=0.25)
    pairs = _pairs(command)
    assert launcher.kv_bytes is not None
    assert pairs["--kv-cache-memory-bytes"] == str(launcher.kv_bytes // 4)
    assert pairs["--port"] == "1234"
    assert pairs["--host"] == "127.0.0.1"
    assert command.env["OMP_NUM_THREADS"] == "1"
    assert command.env["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert command.env["TMPDIR"] == "/private/a"
    assert command.served_model == "m"


def test_gpu_memory_follows_the_share_that_the_server_sees() -> None:
    """Under an MPS cap a server sees the whole GPU, inside a MIG instance only its own part."""
    launcher, _ = load_launcher("vllm")
    sized = dataclasses.replace(MODEL, weight_bytes=2**30, activation_bytes_per_token=2**10)
    pipe, mig = {PIPE_VARIABLE: "/p"}, {"CUDA_VISIBLE_DEVICES": "MIG-1"}
    half: dict[str, Any] = {"memory_fraction": 0.5, "memory_bytes": 20 * 2**30}
    capped = _pairs(_command(launcher, model=sized, env=pipe, **half))
    instance = _pairs(_command(launcher, model=sized, env=mig, **half))
    assert capped["--gpu-memory-utilization"] == "0.4500"
    assert instance["--gpu-memory-utilization"] == "0.9000"
    assert int(capped["--kv-cache-memory-bytes"]) > 15 * 2**30
    assert "--kv-cache-memory-bytes" not in instance  # the engine measures: the whole option goes


def test_the_slot_wins_over_the_launcher_and_the_caller() -> None:
    """What binds a server to its share cannot be overridden by the launcher or the caller."""
    name = "CUDA_VISIBLE_DEVICES"
    launcher = _launcher(env={name: "0", "OTHER": "{slot}"})
    command = _command(launcher, {name: "3"}, env={name: "GPU-9"})
    assert command.env[name] == "GPU-9"
    assert command.env["OTHER"] == "a"


def test_only_allowed_variables_are_inherited() -> None:
    """The caller's engine settings stay behind, since they would change what is measured."""
    caller = {"PATH": "/bin", "VLLM_CPU_KVCACHE_SPACE": "4", "PYTHONPATH": "/ours", "LC_ALL": "C"}
    env = _command(_launcher(), caller).env
    assert env["PYTHONPATH"] == "/private/a/plugins"
    assert env.keys() & caller.keys() == {"PATH", "LC_ALL", "PYTHONPATH"}


def test_secrets_are_neither_in_the_environment_nor_shown() -> None:
    """Keys and tokens are named and added at the start; what is shown has asterisks."""
    launcher = _launcher(api_key_env="VLLM_API_KEY", env={"MY_TOKEN": "hush", "PLAIN": "open"})
    command = _command(launcher, {"HF_TOKEN": "hf-secret"})
    assert command.secrets == ("VLLM_API_KEY", "HF_TOKEN")
    assert "HF_TOKEN" not in command.env
    shown = command.shown()
    assert "hf-secret" not in shown
    assert "hush" not in shown
    assert "MY_TOKEN='***'" in shown
    assert "PLAIN=open" in shown
    assert "run --name m" in shown


def test_a_server_that_takes_no_name_is_asked_for_by_path() -> None:
    """Without {served_model} in the launcher, clients must use the model's path."""
    assert _command(_launcher(command=["run", "{model}"])).served_model == "/models/m"


def test_the_place_of_downloaded_models_survives_a_moved_cache() -> None:
    """Compile caches get a folder of their own; the Hugging Face cache stays where it was."""
    cache = CompileCache(Path("/cache/x"))
    assert cache.env({"HOME": "/home/u"})["HF_HOME"] == "/home/u/.cache/huggingface"
    assert cache.env({"HOME": "/h", "HF_HOME": "/big"})["HF_HOME"] == "/big"
    assert cache.env({"HOME": "/h"})["VLLM_CACHE_ROOT"] == "/cache/x/vllm"


@pytest.mark.parametrize("name", ["host", "model", "api_key", "api-key", "served_model_name"])
def test_what_fairshare_sets_cannot_be_set(name: str) -> None:
    """Arguments that are fairshare's own are refused with the reason, above all keys."""
    with pytest.raises(SpecError, match=f"args.{name} is not yours to set"):
        _command(_launcher(args={name: "x"}))


def test_a_chosen_port_is_given_once() -> None:
    """args.port chooses the port that {port} stands for and is not repeated as an argument."""
    argv = _command(_launcher(command=["run", "--port", "{port}"], args={"port": 1234})).argv
    assert argv == ("run", "--port", "1234")


def test_an_unknown_placeholder_is_named() -> None:
    """A mistyped placeholder is an error with the closest known one, not literal text."""
    with pytest.raises(SpecError, match=r"uses \{prot\}") as caught:
        _command(_launcher(command=["run", "{prot}"]))
    assert caught.value.hint == "did you mean {port}?"


def test_json_values_are_left_alone() -> None:
    """Braces of a JSON value are not taken for placeholders."""
    value = '{"level": 3}'
    assert _command(_launcher(args={"compilation_config": value})).argv[-1] == value


def test_trust_in_remote_code_is_given_only_when_asked_for() -> None:
    """The flag appears only if the launcher says so."""
    assert "--trust-remote-code" not in _command(_launcher()).argv
    assert "--trust-remote-code" in _command(_launcher(trust_remote_code=True)).argv


def _adapter(folder: Path, rank: object) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}), "utf-8")
    return folder


def test_adapters_are_named_after_their_tenants(tmp_path: Path) -> None:
    """A shared server learns each tenant's adapter, and a rank that fits the largest."""
    adapters = {"a": str(_adapter(tmp_path / "1", 8)), "b": str(_adapter(tmp_path / "2", 20))}
    argv = _command(_launcher(), tenants=("a", "b"), adapters=adapters).argv
    at = argv.index("--lora-modules")
    assert argv[at + 1 :] == tuple(f"{name}={path}" for name, path in adapters.items())
    assert _pairs(_command(_launcher(), adapters=adapters))["--max-lora-rank"] == "32"
    assert "--enable-lora" in argv


def test_bad_adapters_are_refused(tmp_path: Path) -> None:
    """A missing adapter, a broken one and one on an engine without adapters are each named."""
    with pytest.raises(SpecError, match="does not exist"):
        _command(_launcher(), adapters={"a": str(tmp_path / "none")})
    with pytest.raises(SpecError, match="not a positive whole number"):
        _command(_launcher(), adapters={"a": str(_adapter(tmp_path / "bad", "x"))})
    with pytest.raises(SpecError, match="cannot serve adapters"):
        _command(_launcher(engine="tgi"), adapters={"a": str(_adapter(tmp_path / "ok", 8))})


@pytest.mark.parametrize("name", ["vllm", "vllm-cpu", "tgi", "sglang", "transformers", "virtual"])
def test_every_shipped_launcher_gives_a_command(name: str) -> None:
    """Each launcher that is shipped fills all its placeholders and listens on 127.0.0.1 only."""
    launcher, _ = load_launcher(name)
    command = _command(launcher, threads=2, memory_bytes=10**9)
    assert not [text for text in command.argv if "{" in text]
    assert command.argv.count("127.0.0.1") == 1
