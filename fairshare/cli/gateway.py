"""gateway: a fair queue in front of an LLM server, by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fairshare.cli.options import Duration, EngineArg
from fairshare.errors import SpecError


class Window(click.ParamType[int | None]):
    """A number of requests, or ``auto``."""

    name = "N|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """The number; None for ``auto``."""
        if value == "auto":
            return None
        if not (isinstance(value, int) or value.isdecimal()) or int(value) < 1:
            self.fail(f"{value!r} is neither auto nor a number of at least 1", param, ctx)
        return int(value)


COUNT = click.IntRange(min=1)


@click.command("gateway")
@click.option("--upstream", required=True, metavar="URL", help="The server, without /v1.")
@click.option("--policy", default="fcfs", show_default=True, help="Who is next.")
@click.option("--option", "options", multiple=True, type=EngineArg(), help="One of the policy's.")
@click.option("--tenants", "tenants_file", type=click.Path(path_type=Path), help="YAML file.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option("--window", type=Window(), default=32, show_default=True, help="At the server.")
@click.option("--window-tokens", type=COUNT, help="Prompt and output tokens at the server.")
@click.option("--max-queued", type=COUNT, default=4096, show_default=True)
@click.option("--max-queued-per-tenant", type=COUNT, default=1024, show_default=True)
@click.option("--max-body", "max_body_bytes", default="8M", show_default=True, metavar="SIZE")
@click.option("--ttl", "ttl_s", type=Duration(), default="300s", show_default=True)
@click.option("--upstream-timeout", "upstream_timeout_s", type=Duration(), default="600s")
@click.option("--drain", "drain_s", type=Duration(), default="30s", show_default=True)
@click.option("--upstream-key-env", metavar="NAME", help="Variable with the server's key.")
@click.option("--trusted-key-env", metavar="NAME", help="Variable with trusted callers' key.")
@click.option("--allow-anonymous", is_flag=True, help="Serve callers without a key too.")
@click.option("--allow-body-user", is_flag=True, help="Take their tenant from the body's user.")
@click.option("--max-tenants", type=COUNT, default=1000, show_default=True)
@click.option("--send-priority", is_flag=True, help="Send the policy's rank to the server.")
@click.option("--tenant-in-body", is_flag=True, help="Send the tenant in vllm_xargs.")
@click.option("--continuous-usage/--no-continuous-usage", default=None, help="Default: find out.")
@click.option("--pass-path", "pass_paths", multiple=True, help="POST here needs no turn.")
@click.option("--event-log", type=click.Path(path_type=Path), help="A JSON line per decision.")
def gateway_command(tenants_file: Path | None, options: tuple[Any, ...], **given: Any) -> None:
    """Queue requests in front of a server, and let the policy say who is next.

    Tenants are known by the API keys in the --tenants file. Docs: docs/gateway.md.
    """
    import asyncio

    from pydantic import ValidationError

    from fairshare.gateway.identity import Keys, keys_of
    from fairshare.gateway.server import serve
    from fairshare.gateway.settings import GatewaySettings, complaints
    from fairshare.gateway.tenants_file import read_tenants

    terms, written = read_tenants(tenants_file) if tenants_file else ({}, {})
    try:
        settings = GatewaySettings(policy_options=dict(options), tenants=terms, **given)
    except ValidationError as error:
        raise SpecError("the gateway cannot be set up so", evidence=complaints(error)) from None
    named = keys_of(settings)
    keys = Keys({**named.tenants, **written}, named.trusted, named.upstream)

    def ready(port: int) -> None:
        click.echo(
            f"gateway on http://{settings.host}:{port} -> {settings.upstream}, "
            f"policy {settings.policy}; metrics at /gateway/metrics"
        )
        if not keys.tenants and keys.trusted is None:
            click.echo("nobody has a key: all requests are one tenant (see --tenants)", err=True)

    asyncio.run(serve(settings, keys, ready))
