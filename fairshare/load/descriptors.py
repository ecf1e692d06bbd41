"""One connection per request in flight: the process must be allowed to open them."""

from __future__ import annotations

import resource


def allow_many_connections() -> None:
    """Raise the soft limit of open files to the hard one.

    The usual soft limit of 1,024 is there for programs that use ``select``; an open loop against a
    slow server is past it within a minute, and would then measure its own limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
