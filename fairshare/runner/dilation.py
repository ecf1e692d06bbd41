"""How late the simulated GPU's tokens came: a host that is busy or too slow stretches time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fairshare.serving.exposition import fetch_page
from fairshare.serving.fleet import Fleet
from fairshare.serving.probes import new_session

# Beyond it, figures leave what virtual time and servers on an idle host agree within.
TOLERATED = 1.03
_PREFIX = "fairshare_virtual_"
_WAITS = ("ttft", "e2e")
Counted = Mapping[str, float]


async def counted(fleet: Fleet) -> dict[str, Counted]:
    """What each simulated server has counted so far; a server that does not answer is left out."""
    async with new_session() as session:
        names, servers = list(fleet.servers), fleet.servers.values()
        pages = await asyncio.gather(*(fetch_page(session, server) for server in servers))
    return {name: _own(page) for name, page in zip(names, pages, strict=True) if page}


def dilation(
    before: Mapping[str, Counted], after: Mapping[str, Counted]
) -> dict[str, float] | None:
    """The time-dilation factors of the server that was latest; None where nothing was answered.

    ``ttft`` and ``e2e`` are real over simulated time from a request's receipt to its first token
    and to its end, over all requests; ``lost_s`` is what was not made up for.
    """
    found = [_factors(before[name], after[name]) for name in before.keys() & after.keys()]
    return max((each for each in found if each), key=lambda each: each["ttft"], default=None)


def too_slow(factors: Mapping[str, float] | None) -> str | None:
    """What to say beside the figures if the host was too slow for them."""
    if factors is None or max(factors[wait] for wait in _WAITS) <= TOLERATED:
        return None
    longer = {wait: 100 * (factors[wait] - 1) for wait in _WAITS}
    return (
        f"by the servers' own account first tokens took {longer['ttft']:.0f} % longer than "
        f"simulated, whole answers {longer['e2e']:.0f} %: this machine is too slow or too busy for "
        "the load (fewer tenants, less other work, or fairshare predict)"
    )


def _own(page: str) -> Counted:
    lines = [line for line in page.splitlines() if line.startswith(_PREFIX)]
    return {
        line.partition("{")[0].removeprefix(_PREFIX): float(line.rpartition(" ")[2])
        for line in lines
    }


def _factors(before: Counted, after: Counted) -> dict[str, float] | None:
    def more(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    simulated = {wait: more(f"{wait}_simulated_seconds_total") for wait in _WAITS}
    if min(simulated.values()) <= 0:
        return None
    factors = {wait: more(f"{wait}_seconds_total") / simulated[wait] for wait in _WAITS}
    return {
        **{wait: round(factor, 4) for wait, factor in factors.items()},
        "lost_s": round(more("time_lost_seconds_total"), 3),
    }
