"""Flags of many machines, and what a cluster makes of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fairshare.cli.options import TEXT
from fairshare.errors import PreflightError

if TYPE_CHECKING:
    from fairshare.runner.plan import RunPlan
    from fairshare.runner.settings import Flags, Settings
    from fairshare.runner.site import Site
    from fairshare.spec.matrix import Matrix


def cluster_flags(command: Any) -> Any:
    """Where deployments run."""
    for option in reversed(
        [
            click.option(
                "--on",
                type=click.Choice(["ray"]),
                help="Spread deployments over the GPUs of a Ray cluster (docs/many-machines.md).",
            ),
            click.option(
                "--ray-address",
                type=TEXT,
                metavar="ADDRESS",
                help="The cluster, or auto for the one of this machine (without it: one of this "
                "machine alone, for the time of the sweep).",
            ),
        ]
    ):
        command = option(command)
    return command


def spread(
    given: dict[str, Any], matrix: Matrix, flags: Flags, output_dir: Path | None
) -> tuple[Settings, RunPlan, Site] | None:
    """Settings, plan and devices of a cluster, which stays connected until the command ends.

    None where this machine is meant.

    Raises:
        PreflightError: Ray is not installed, not reached, or has no device for it.
        SpecError: what was asked for is wrong, or cannot be spread.
    """
    if given["on"] is None:
        if given["ray_address"] is not None:
            raise click.UsageError("--ray-address is for --on ray")
        return None
    try:
        from fairshare.cluster.ray_cluster import connected
    except ImportError:
        raise PreflightError(
            "Ray is not installed", hint="pip install 'fairshare[ray]', on every node"
        ) from None
    from fairshare.cluster.inputs import kind_asked
    from fairshare.cluster.roster import muster
    from fairshare.cluster.site import ClusterSite

    kind_asked(matrix, flags)  # for its errors: a cluster takes seconds to start
    click.get_current_context().with_resource(connected(given["ray_address"]))
    roster = muster(matrix, flags, output_dir)
    click.echo(f"device: {roster.settings.device_reason}")
    return roster.settings, roster.plan, ClusterSite(roster)
