"""No garbage collection while the clock runs: a full collection stops the client for tens of ms."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collection_paused() -> Iterator[None]:
    """Collect before, pause within, restore after."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()  # what exists now need not be looked at again
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
        gc.unfreeze()
