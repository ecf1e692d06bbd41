"""The virtual server, which notes a digest of every prompt that it is sent.

::

    python tests/chaos/noting_server.py ...     as python -m fairshare.virtual.server ...

Lengths and digests go, one a line, to a file beside the folder of the simulated GPU, which is what
a server is told; each in one write.
"""

from __future__ import annotations

import hashlib
import os
import runpy
from pathlib import Path
from typing import Any

from fairshare.virtual import http
from fairshare.virtual.requests import ParsedRequest, Served, parse_request
from fairshare.virtual.state import STATE_ENV


def noted(body: Any, served: Served, *, chat: bool) -> ParsedRequest:
    """The request, its prompt noted."""
    parsed = parse_request(body, served, chat=chat)
    digest = hashlib.sha256(repr(list(parsed.prompt)).encode()).hexdigest()
    with Path(f"{os.environ[STATE_ENV]}.prompts").open("ab", buffering=0) as file:
        file.write(f"{len(parsed.prompt)} {digest}\n".encode())
    return parsed


if __name__ == "__main__":
    http.parse_request = noted  # type: ignore[attr-defined]
    runpy.run_module("fairshare.virtual.server", run_name="__main__")
