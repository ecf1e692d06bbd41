"""A gateway as a process of its own: ``python -m fairshare.gateway --settings FILE``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from fairshare.errors import FairshareError
from fairshare.gateway.identity import keys_of
from fairshare.gateway.server import serve
from fairshare.gateway.settings import read_settings


def main() -> int:
    """Print ``{"port": N}`` once it listens, and serve until a signal; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=Path, required=True, help="GatewaySettings as JSON")
    options = parser.parse_args()
    try:
        settings = read_settings(options.settings)
        asyncio.run(serve(settings, keys_of(settings), _ready))
    except FairshareError as error:
        sys.stderr.write(f"error: {error}\n")
        return int(error.exit_code)
    return 0


def _ready(port: int) -> None:
    print(json.dumps({"port": port}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
