"""The driver may open as many connections as the machine allows."""

from __future__ import annotations

import resource

from fairshare.load.descriptors import allow_many_connections


def test_soft_limit_becomes_the_hard_one() -> None:
    """A low soft limit is no reason for failed requests."""
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        allow_many_connections()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
