"""All checks for a run, side by side and each within a bound."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from fairshare.doctor import engine, gpu, holders, host, limits, mig, mps, packages, state
from fairshare.doctor.finding import Finding, fail, ok
from fairshare.doctor.intent import Intent
from fairshare.spec.launcher import DeviceKind

T = TypeVar("T")
BOUND_S = 45.0  # more than every tool together is given; only a wedged driver comes near


@dataclass(frozen=True, slots=True)
class _Gathered(Generic[T]):
    """What a gatherer brought, or the finding that it brought nothing."""

    facts: T | None
    trouble: Finding | None = None


def examine(intent: Intent, bound_s: float = BOUND_S) -> list[Finding]:
    """Every check that matters to the run, in the order of a person's questions."""
    gatherers: dict[str, Callable[[Intent], Any]] = {
        "host": host.gather,
        "limits": limits.gather,
        "state": state.gather,
        "packages": packages.gather,
        "engine": engine.gather,
    }
    if intent.on_gpu and _is_made(intent):
        gatherers |= {"gpu": gpu.gather, "mig": mig.gather, "mps": mps.gather}
    if intent.kind is DeviceKind.CUDA:
        gatherers["holders"] = holders.gather
    gathered = _gather_all({n: partial(g, intent) for n, g in gatherers.items()}, bound_s)
    return list(_judge(gathered, intent))


def _is_made(intent: Intent) -> bool:
    """Whether there is a driver to ask: a simulated GPU is made when it is first used."""
    return intent.simulated is None or (intent.simulated / "state.json").exists()


def _judge(gathered: dict[str, _Gathered[Any]], intent: Intent) -> Iterator[Finding]:
    yield from (each.trouble for each in gathered.values() if each.trouble is not None)
    facts = {name: each.facts for name, each in gathered.items() if each.facts is not None}
    driver: gpu.GpuFacts | None = facts.get("gpu")
    if intent.on_gpu and not _is_made(intent):
        yield ok("gpu", f"simulated; made when it is first used, in {intent.simulated}")
    if driver is not None:
        instances: mig.MigFacts = facts.get("mig", mig.MigFacts())
        yield from gpu.check(driver, intent)
        if "holders" in facts:
            resets = mig.switches_by_reset(instances, driver, intent)
            yield from holders.check(facts["holders"], changes_mode=resets)
        yield from mig.check(instances, driver, intent)
        if "mps" in facts:
            daemon = mps.needs_daemon(instances, intent)
            yield from mps.check(facts["mps"], driver, intent, daemon=daemon)
    if "engine" in facts:
        yield from engine.check(facts["engine"], driver, intent)
    for name, family in (("packages", packages), ("host", host), ("limits", limits)):
        if name in facts:
            yield from family.check(facts[name], intent)
    if "state" in facts:
        yield from state.check(facts["state"], intent)


def _gather_all(
    gatherers: dict[str, Callable[[], Any]], bound_s: float
) -> dict[str, _Gathered[Any]]:
    """Run all at once, in threads that may be left behind.

    A call into a wedged driver or to a dead file server never returns, and cannot be ended.
    """
    found: dict[str, _Gathered[Any]] = {}
    deadline_s = time.monotonic() + bound_s
    threads = {
        name: threading.Thread(target=_gather_one, args=(name, gather, found), daemon=True)
        for name, gather in gatherers.items()
    }
    for thread in threads.values():
        thread.start()
    for thread in threads.values():
        thread.join(max(0.0, deadline_s - time.monotonic()))
    return {name: found.get(name) or _unanswered(name, bound_s) for name in gatherers}


def _gather_one(name: str, gather: Callable[[], Any], found: dict[str, _Gathered[Any]]) -> None:
    try:
        found[name] = _Gathered(gather())
    except Exception as error:  # a doctor that breaks must say so and go on with the others
        says = f"this could not be examined: {type(error).__name__}: {error}"
        found[name] = _Gathered(None, fail(name, says, "please report it, with this line"))


def _unanswered(name: str, bound_s: float) -> _Gathered[Any]:
    says = f"no answer within {bound_s:g} s: the driver or a file system hangs"
    return _Gathered(None, fail(name, says, "sudo dmesg | tail, and restart what it names"))
