"""The command line and environment of one server. Pure: what ``plan`` shows is what is started."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fairshare.devices.device import Device
from fairshare.errors import SpecError
from fairshare.serving.adapters import adapter_arguments
from fairshare.serving.caches import CompileCache
from fairshare.serving.environment import inherited, inherited_secrets, shown_value
from fairshare.serving.models import ModelFacts
from fairshare.serving.placeholders import HOST, fill, fill_command, uses, values_of
from fairshare.serving.plugins import plugins_env, reports_dir
from fairshare.sharing.plan import Slot
from fairshare.spec.launcher import ArgValue, Engine, Launcher
from fairshare.units import parse_bytes

_OURS = {
    "host": "servers listen on 127.0.0.1 only",
    "model": "set the tenant's model or --model",
    "api_key": "keys never go on a command line; fairshare makes one for each run",
    "served_model_name": "fairshare names the model",
}


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """How one server is started.

    ``env`` is the whole environment but for the secrets, ``chosen`` what of it is not merely
    inherited; ``secrets`` names the variables that are added at the start; ``reports`` is where
    the engine reports its share (None: it cannot), ``kv_bytes`` the KV cache it is told to hold.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    chosen: frozenset[str]
    secrets: tuple[str, ...]
    port: int
    served_model: str
    reports: Path | None = None
    kv_bytes: int | None = None

    @property
    def base_url(self) -> str:
        """Where the server will answer."""
        return f"http://{HOST}:{self.port}"

    def shown(self) -> str:
        """A command that a person can read and copy; secrets are asterisks."""
        env = [
            f"{name}={shlex.quote(shown_value(name, self.env[name]))}"
            for name in sorted(self.chosen & self.env.keys())
        ]
        env += [f"{name}=***" for name in self.secrets]
        lines = ["env", *(f"  {pair}" for pair in env)] if env else []
        return " \\\n".join(
            [*lines, f"  {shlex.join(self.argv)}" if lines else shlex.join(self.argv)]
        )


def server_command(
    launcher: Launcher,
    slot: Slot,
    model: ModelFacts,
    *,
    device: Device,
    port: int,
    run_dir: Path,
    python: str,
    cache: CompileCache | None = None,
    caller: Mapping[str, str] | None = None,
) -> ServerCommand:
    """The command of the slot's server. ``caller`` is the environment to inherit from.

    Environment, the later winning: the allowed part of the caller's, ours (private TMPDIR, compile
    caches), the launcher's, the slot's (what binds it to its share).

    Raises:
        SpecError: an unknown placeholder, an argument that is ours to set, or adapters on an
            engine that has none.
    """
    caller = os.environ if caller is None else caller
    values = values_of(
        launcher, slot, model, device=device, port=port, run_dir=run_dir, python=python
    )
    argv = [
        *fill_command(launcher.command, values),
        *_engine_arguments(launcher, values),
        *adapter_arguments(launcher, slot),
    ]
    chosen = {
        **_ours(launcher, model, run_dir),
        **(cache.env(caller) if cache is not None else {}),
        **_filled(launcher.env, values),
        **slot.env,
    }
    chosen |= plugins_env(launcher, chosen, run_dir)
    secrets = [launcher.api_key_env] if launcher.api_key_env else []
    # A server that cannot be told a name is asked for by the path it was started with.
    named = uses(launcher, "served_model")
    return ServerCommand(
        argv=tuple(argv),
        env=inherited(caller, launcher.engine) | chosen,
        chosen=frozenset(chosen),
        secrets=(*secrets, *inherited_secrets(caller)),
        port=port,
        served_model=model.served_name if named else model.path,
        reports=reports_dir(run_dir) if launcher.engine is Engine.VLLM else None,
        kv_bytes=_kv_bytes(argv) if launcher.engine is Engine.VLLM else None,
    )


def _ours(launcher: Launcher, model: ModelFacts, run_dir: Path) -> dict[str, str]:
    env = {"TMPDIR": str(run_dir), "PYTHONUNBUFFERED": "1"}
    if launcher.engine is not Engine.VIRTUAL and Path(model.path).is_absolute():
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # the model is already here
    return env


def _kv_bytes(argv: Sequence[str]) -> int | None:
    """What vLLM's option says; of several the last counts."""
    values = [value for flag, value in pairwise(argv) if flag == "--kv-cache-memory-bytes"]
    with contextlib.suppress(ValueError):
        return parse_bytes(values[-1]) if values else None
    return None  # written in a way that only the engine understands


def _filled(env: Mapping[str, str], values: Mapping[str, str | None]) -> dict[str, str]:
    """The launcher's variables; one whose value is not set in this slot is left out."""
    filled = {name: fill(text, values) for name, text in env.items()}
    return {name: value for name, value in filled.items() if value is not None}


def _engine_arguments(launcher: Launcher, values: Mapping[str, str | None]) -> Iterator[str]:
    for name, value in launcher.args.items():
        key = name.lstrip("-").replace("-", "_")
        if key in _OURS:
            raise SpecError(f"args.{name} is not yours to set: {_OURS[key]}")
        if key == "port":
            continue  # already in {port}
        yield from _flag(name, value, values)
    if launcher.trust_remote_code:
        yield "--trust-remote-code"


def _flag(name: str, value: ArgValue, values: Mapping[str, str | None]) -> list[str]:
    """``max_model_len: 2048`` as ``--max-model-len 2048``; see :class:`Launcher`."""
    flag = f"--{name.lstrip('-').replace('_', '-')}"
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    items = value if isinstance(value, list) else [value]
    filled = [fill(str(item), values) for item in items]
    if None in filled:
        return []
    return [flag, *(item for item in filled if item is not None)]
