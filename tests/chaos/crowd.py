"""Many acts of chaos at once, each on a stage of its own: runs mostly wait for their windows."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos.stage import Stage, staged
from tests.chaos.tally import TALLY

Act = Callable[[Stage], None]
AT_ONCE = 1 + (os.cpu_count() or 1)


def many(
    cache_dir: Path,
    acts: Mapping[str, Act] | Iterable[tuple[str, Act]],
    *,
    instances: tuple[int, ...] = (),
) -> None:
    """Play each act on a stage of its own, several at once; fails with every complaint there was.

    An act has a name and fails by an assertion or by taking too long. ``instances``: see
    `staged`.
    """
    named = list(acts.items()) if isinstance(acts, Mapping) else list(acts)

    def play(name: str, act: Act) -> str | None:
        with staged(cache_dir, instances=instances) as stage:
            try:
                act(stage)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                last = "\n".join(map(str, stage.events()[-3:]))
                return f"{name}: {error}\n{stage.output[-1500:]}\n{last}"
        return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        complaints = [told for told in pool.map(lambda pair: play(*pair), named) if told]
    assert not complaints, f"{len(complaints)} of {len(named)}:\n" + "\n".join(complaints)


def restored(stage: Stage, kind: str, where: str, *, reaper: bool) -> None:
    """Wait until nothing is left of a run just killed; ``fairshare clean`` if its reaper was too.

    The time until then goes into the tally.
    """
    started_s = time.monotonic()
    if reaper:
        cleaned = stage.clean()
        assert cleaned.returncode == 0, cleaned.stdout
    stage.wait_restored()
    dead = f"{kind}, its reaper killed too" if reaper else kind
    TALLY.add(dead, where, time.monotonic() - started_s)
