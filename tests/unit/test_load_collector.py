"""Garbage collection stands still while the clock runs."""

from __future__ import annotations

import gc

import pytest

from fairshare.load.collector import collection_paused


@pytest.mark.parametrize("enabled", [True, False])
def test_collection_is_paused_and_then_as_it_was(enabled: bool) -> None:
    """Whoever had it on has it on again, also after an error; whoever had it off, off."""
    before = gc.isenabled()
    try:
        gc.enable() if enabled else gc.disable()
        with pytest.raises(KeyError), collection_paused():
            assert not gc.isenabled()
            assert gc.get_freeze_count() > 0
            raise KeyError
        assert gc.isenabled() is enabled
        assert gc.get_freeze_count() == 0
    finally:
        gc.enable() if before else gc.disable()
