"""The clients of an MPS daemon: who they are, whether they are well, and how it lets go of them.

A process whose environment leads to no daemon runs without MPS and without limits, and nothing says
so; only the daemon's own list tells. After a fatal fault of one client its server serves nobody
until every client has gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import Any

from fairshare.errors import PartitionError
from fairshare.processes.identity import ProcessIdentity
from fairshare.sharing.mps_control import MpsControl

FAULT = "FAULT"
_TERMINATE_S = 4.0
_USABLE_S = 30.0
_POLL_S = 0.2


async def terminate_clients(control: MpsControl, pids: Collection[int] | None = None) -> list[int]:
    """Have the servers end the work of clients, which may then be killed; return their pids.

    ``pids``: of these processes alone; else of all. A client that is killed with work in flight may
    leave the server and the other clients in an undefined state.

    Raises:
        PartitionError: the daemon does not answer.
    """
    if not await control.answers():
        return []
    found = [
        (server, client)
        for server in await control.servers()
        for client in await control.clients(server)
        if pids is None or client in pids
    ]
    commands = [f"terminate_client {server} {client}" for server, client in found]
    await asyncio.gather(*(control.ask(command, _TERMINATE_S) for command in commands))
    return [client for _, client in found]


async def find_client(
    control: MpsControl, name: str, pids: Collection[int], computing: Collection[int] = ()
) -> dict[str, Any]:
    """The processes of a server that are clients of the daemon, as the daemon tells it.

    ``computing``: those of its ``pids`` that are known to be on the GPU. Returns the evidence:
    ``mps_server_pid``, ``mps_client_pids`` and ``mps_server_percentage``.

    Raises:
        PartitionError: none is, or one on the GPU is not: it runs without MPS and without limits.
    """
    seen = {server: await control.clients(server) for server in await control.servers()}
    for server, clients in seen.items():
        own = sorted(set(clients) & set(pids))
        if own and set(computing) <= set(clients):
            return {
                "mps_server_pid": server,
                "mps_client_pids": own,
                "mps_server_percentage": await control.server_percentage(server),
            }
    strays = sorted(set(computing).difference(*seen.values()))
    who = f"process {strays[0]}" if strays else "no process"
    what = "is no client" if strays else "is a client"
    raise PartitionError(
        f"{who} of the server {name} {what} of the MPS daemon: "
        "it runs without MPS and without limits",
        evidence=[f"its processes: {sorted(pids)}", f"clients by MPS server: {seen or 'none'}"],
    )


async def trouble(
    control: MpsControl, engines: Mapping[str, Collection[ProcessIdentity]]
) -> str | None:
    """Why the shares are not in force any more, None if they are.

    ``engines``: for each server its processes that were clients.

    Raises:
        PartitionError: the daemon does not answer.
    """
    clients: set[int] = set()
    for server in await control.servers():
        if await control.status(server) == FAULT:
            return (
                f"the MPS server (process {server}) is in state FAULT: a fatal fault of one client "
                "hit all of them, and it serves nobody until all have gone"
            )
        clients.update(await control.clients(server))
    for name, identities in engines.items():
        # One that has ended is told by its server's own diagnosis.
        lost = [each.pid for each in identities if each.pid not in clients and each.alive()]
        if lost:
            return (
                f"the engine of server {name} (process {lost[0]}) is no client of the MPS daemon "
                "any more: it runs without limits, or not at all"
            )
    return None


async def until_usable(control: MpsControl) -> None:
    """Return when new clients are taken: every server is active again, or none runs.

    Raises:
        PartitionError: that did not happen in time, or the daemon does not answer.
    """
    deadline_s = time.monotonic() + _USABLE_S
    while True:
        states = {server: await control.status(server) for server in await control.servers()}
        if FAULT not in states.values():
            return
        if time.monotonic() > deadline_s:
            shown = ", ".join(f"{server}: {state}" for server, state in states.items())
            raise PartitionError(
                f"the MPS servers are not active {_USABLE_S:g} s after all clients have gone",
                evidence=[shown],
            )
        await asyncio.sleep(_POLL_S)
