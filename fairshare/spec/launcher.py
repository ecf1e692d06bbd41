"""How one server process is built, started, known to be ready, and stopped."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from fairshare.spec.base import Bytes, Name, PositiveSeconds, Spec
from fairshare.spec.scenario import Api

ArgValue = bool | int | float | str | list[str | int | float] | None


class Engine(StrEnum):
    """Which family of server it is: decides what can be checked and asked of it."""

    VLLM = "vllm"
    TGI = "tgi"
    SGLANG = "sglang"
    TRANSFORMERS = "transformers"
    VIRTUAL = "virtual"
    EXTERNAL = "external"


class DeviceKind(StrEnum):
    """What kind of device a server runs on."""

    CUDA = "cuda"
    CPU = "cpu"
    VIRTUAL = "virtual"
    EXTERNAL = "external"  # whatever runs behind somebody else's servers


_OF_STARTED_SERVERS = (
    *("python", "command", "args", "env", "ready_timeout_s", "stop_grace_s", "api_key_env"),
    *("trust_remote_code", "kv_bytes"),
)


def _with_place(url: str) -> str:
    """The URL, if it names a host, and a port that there is."""
    parts = urlsplit(url)  # a bracket left open is a ValueError, as is a port out of range
    if not parts.hostname or parts.port == 0:
        raise ValueError(f"{url!r} names no host and port to connect to")
    return url


UrlPath = Annotated[str, Field(pattern=r"^/[!-~]*$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Endpoint(Spec):
    """A server that somebody else runs."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$"), AfterValidator(_with_place)]
    model: str | None = None
    """Name to ask for; without it, the first that the server lists."""
    api_key_env: Variable | None = None
    """Environment variable that holds the key."""


class Launcher(Spec):
    """How one server process is started. ``{...}`` stand for values that fairshare fills in.

    Placeholders: ``{python} {model} {served_model} {host} {port} {slot} {run_dir}`` (private to the
    server, and deleted), and of the server's share ``{memory_bytes} {memory_fraction}
    {memory_utilization}`` (what it is to use of the memory that it sees), ``{kv_bytes}
    {compute_fraction} {cores} {threads}``. An option whose value is not set in a share is left out.
    """

    format_version: int = Field(1, ge=1, le=1)
    name: Name
    description: str = ""
    engine: Engine
    devices: list[DeviceKind] = []
    """Devices this launcher can be used on; the first launcher that fits is the default."""
    python: str | None = None
    """Interpreter in which the engine is installed."""
    command: list[str] = []
    """The command line, argument by argument; no shell is involved."""
    args: dict[str, ArgValue] = {}
    """Engine arguments: ``max_model_len: 2048`` becomes ``--max-model-len 2048``; true becomes
    the bare flag, false its ``--no-`` form, null leaves it out."""
    env: dict[Variable, str] = {}
    """Environment variables, over an allow-list of the caller's."""
    apis: list[Api] = Field([Api.COMPLETIONS], min_length=1)
    """Protocols the server speaks; the first is the default."""
    health_path: UrlPath = "/health"
    models_path: UrlPath | None = "/v1/models"
    metrics_path: UrlPath | None = "/metrics"
    ready_timeout_s: PositiveSeconds = 300.0
    stop_grace_s: PositiveSeconds = 15.0
    """A ready server may take so long to stop by itself."""
    api_key_env: Variable | None = None
    """Variable by which the server learns the run's API key."""
    token_id_prompts: bool = True
    """Whether prompts may be sent as token ids (else text is made of exactly as many tokens)."""
    ignores_end_token: bool = True
    """Whether the server can be told to pass over it; else it is given the model without one."""
    continuous_usage: bool = True
    """Whether the server understands vLLM's extra fields (token ids, usage in each chunk)."""
    trust_remote_code: bool = False
    kv_bytes: Bytes | None = None
    """KV-cache bytes of a whole device; a server gets its slot's fraction. Without it, servers with
    neighbours on a GPU are given what fits beside the model, and others measure it themselves."""
    endpoints: dict[str, Endpoint] = {}
    """For engine external: tenant name (or ``default``) to the server that serves it."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.engine is Engine.EXTERNAL:
            fields = type(self).model_fields
            idle = [n for n in _OF_STARTED_SERVERS if getattr(self, n) != fields[n].default]
            if idle:
                raise ValueError(f"an external launcher starts nothing: remove {', '.join(idle)}")
            if not self.endpoints:
                raise ValueError("endpoints are missing: where do the servers answer?")
            return self
        if not self.command or not self.command[0].strip():
            raise ValueError("command is missing")
        if self.endpoints:
            raise ValueError("endpoints are for engine external: remove them, or command")
        texts = [*self.command, *self.env.values(), *map(str, self.args.values())]
        if self.kv_bytes is not None and not any("{kv_bytes}" in text for text in texts):
            raise ValueError("kv_bytes does nothing: no command, args or env mention {kv_bytes}")
        return self
