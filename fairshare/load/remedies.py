"""What helps a load generator that is in the way."""

from __future__ import annotations

from fairshare.records import TransportKind

# Less than this without a core is what any machine does now and then.
MIN_WAITED_FRACTION = 0.05


def remedy(
    *, tenants: int, transport: TransportKind, used_fraction: float, waited_fraction: float
) -> str:
    """What to change, by what it lacked: a core at all, or more than one.

    ``used_fraction`` and ``waited_fraction`` are of the time watched, on a core and ready without
    one; ``tenants`` is how many this process drove.
    """
    if waited_fraction > max(MIN_WAITED_FRACTION, used_fraction):
        return (
            f"it waited for a core {waited_fraction:.0%} of the time: leave one free for it, with "
            "fewer tenants or less other work on this machine"
        )
    if transport is TransportKind.AIOHTTP:
        return "--transport stream needs less of a core"
    if tenants > 1:
        return f"more --load-processes spread its {tenants} tenants over more cores"
    return (
        "a tenant stays in one process: lower its load, or write it as two tenants "
        "and give each a process with --load-processes 2"
    )
