"""Everything a gateway is told, as one value that travels as JSON to a gateway of its own process.

Keys are not in it: it names the environment variables that hold them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, model_validator

from fairshare.errors import SpecError
from fairshare.scheduling.policies import policy_for
from fairshare.scheduling.policy import Tenants, Terms
from fairshare.spec.base import Bytes, PositiveFloat, PositiveSeconds, Spec

MIB = 1 << 20
DEFAULT_WINDOW = 32
Count = Annotated[int, Field(gt=0, lt=2**53)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
TenantName = Annotated[str, Field(min_length=1, max_length=128)]


def _base_url(url: str) -> str:
    parts = urlsplit(url)  # a bracket left open is a ValueError, as is a port out of range
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(f"{url!r} is not http://HOST:PORT or https://HOST:PORT")
    if parts.query or parts.fragment or parts.username is not None or not url.isprintable():
        raise ValueError(f"{url!r} has more than a host, a port and a path")
    return url.rstrip("/")


class TenantTerms(Spec):
    """What one tenant is entitled to, and where its key is."""

    weight: PositiveFloat = 1.0
    """Twice the weight, twice the service."""
    slo_ttft_s: PositiveSeconds | None = None
    slo_e2e_s: PositiveSeconds | None = None
    key_env: Variable | None = None
    """The environment variable that holds this tenant's API key."""

    @property
    def terms(self) -> Terms:
        """As the policies know it."""
        return Terms(self.weight, self.slo_e2e_s, self.slo_ttft_s)


class GatewaySettings(Spec):
    """What a gateway does, and for whom."""

    format_version: int = Field(1, ge=1, le=1)
    upstream: Annotated[str, AfterValidator(_base_url)]
    """The server's base URL, without ``/v1``."""
    upstream_key_env: Variable | None = None
    """The variable with the key that the server wants; it replaces whatever clients send."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, lt=65536)] = 0
    """0: any free one."""

    policy: str = "fcfs"
    policy_options: dict[str, Any] = Field(default_factory=dict)
    tenants: dict[TenantName, TenantTerms] = Field(default_factory=dict)
    trusted_key_env: Variable | None = None
    """The variable with the key of callers whose headers are believed about the tenant."""
    allow_anonymous: bool = False
    """Serve callers without a key although there are keys, as tenant ``default``."""
    allow_body_user: bool = False
    """Take ``user`` of the body for the tenant of callers without a key."""
    max_tenants: Count = 1000
    """Tenants that are told apart; all further ones that headers or bodies name are one."""

    window: Count | None = DEFAULT_WINDOW
    """Requests at the server at once; None: as many as keep one or two waiting there."""
    window_tokens: Count | None = None
    """Tokens (prompt, and output at its longest) at the server at once."""
    max_queued: Count = 4096
    max_queued_per_tenant: Count = 1024
    max_queued_bytes: Bytes = 256 * MIB
    max_body_bytes: Bytes = 8 * MIB
    ttl_s: PositiveSeconds = 300.0
    """A request that has waited so long is refused."""
    default_output_tokens: Count = 1024
    """Reserved for requests that state no maximum."""

    continuous_usage: bool | None = None
    """Whether the server understands vLLM's ``continuous_usage_stats``; None: find out."""
    send_priority: bool = False
    """Tell the server the policy's rank, for vLLM's ``--scheduling-policy priority``."""
    tenant_in_body: bool = False
    """Tell the server the tenant in ``vllm_xargs.tenant``, for a scheduler inside the engine."""
    pass_paths: list[str] = Field(default_factory=list)
    """Further paths whose POST requests are passed on without waiting in the queue."""

    body_timeout_s: PositiveSeconds = 30.0
    """A client may take so long to send its request."""
    client_timeout_s: PositiveSeconds = 60.0
    """A client that reads nothing for so long is cut off."""
    upstream_timeout_s: PositiveSeconds = 600.0
    """A server that says nothing for so long has failed the request."""
    connect_timeout_s: PositiveSeconds = 10.0
    drain_s: PositiveSeconds = 30.0
    """Running requests may take so long to end once the gateway is to stop."""
    event_log: Path | None = None
    """Where each decision is written, a JSON line each."""

    @model_validator(mode="after")
    def _known_policy(self) -> Self:
        policy_for(self.policy, self.policy_options, self.terms)
        return self

    @property
    def terms(self) -> Tenants:
        """The tenants' terms as the policies know them."""
        return Tenants({name: tenant.terms for name, tenant in self.tenants.items()})


def read_settings(path: Path) -> GatewaySettings:
    """The settings in a JSON file.

    Raises:
        SpecError: it cannot be read, or what it says is wrong.
    """
    try:
        return GatewaySettings.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SpecError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        raise SpecError(f"{path} is not a gateway's settings", evidence=complaints(error)) from None


def complaints(error: ValidationError) -> list[str]:
    """One line for each thing that is wrong."""
    lines = []
    for each in error.errors(include_url=False, include_input=False):
        where = ".".join(map(str, each["loc"]))
        text = each["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {text}" if where else text)
    return lines
