"""What one tenant's requests share."""

from __future__ import annotations

from dataclasses import dataclass

from fairshare.load.ahead import RequestQueue
from fairshare.load.target import Target
from fairshare.load.transport import Transport


@dataclass(slots=True)
class Lane:
    """A tenant's target, the transport to it, the headers of every request, and what is next."""

    target: Target
    transport: Transport
    headers: dict[str, str]
    queue: RequestQueue
