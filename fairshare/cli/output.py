"""Standard output that may be gone: a full disk, a closed pipe."""

from __future__ import annotations

import os
import sys
from typing import Any

import click


def say(text: str, **style: Any) -> None:
    """Print a line where that can be done; work that must go on does not depend on it."""
    try:
        click.secho(text, **style)
    except OSError:
        silence()


def silence() -> None:
    """Print nowhere from now on; else Python would complain when it flushes at its end."""
    if sys.stdout is None:  # started with it closed
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
