"""What a policy's decisions cost, beside a scan over all tenants, in one run.

Usage: ``python -m benchmarks.scheduling [--tenants 1000 100000] [--policies vtc drr] [--rounds 3]``

Each tenant sends one request first. Then, for each of so many requests more: it arrives, the head
is asked for and admitted, whatever was produced is told, and the request that was admitted some
time before is finished. So the number of waiting tenants stays about what it is. The time of one
such request counts all of these calls: ``arrive``, ``head``, ``admit``, ``produced`` (4 times, of
16 tokens each) and ``finish``, in processor time. The least of all rounds is given, in
microseconds. ``scan`` is what artifacts do: least counter first by ``min`` over all tenants.
"""

from __future__ import annotations

import argparse
import gc
import platform
import random
import sys
import time
from collections import deque
from collections.abc import Iterator

from fairshare.scheduling.bookkeeping import Bookkeeping
from fairshare.scheduling.policies import names, policy_for
from fairshare.scheduling.policy import Request, SchedulingPolicy
from fairshare.scheduling.queues import TenantQueues

SCAN = "scan"
RUNNING = 256
CHUNKS = 4
CHUNK_TOKENS = 16


class Scan(Bookkeeping[TenantQueues]):
    """The peer: the least counter, looked for among all tenants that wait."""

    name = SCAN

    def __init__(self) -> None:
        super().__init__(TenantQueues())
        self._counters: dict[str, float] = {}

    def head(self, now_s: float) -> Request | None:
        """The first of the tenant that ``min`` finds."""
        if not self._waiting:
            return None
        least = min(self._waiting.tenants(), key=lambda tenant: self._counters.get(tenant, 0.0))
        return self._waiting.first(least)

    def admit(self, request: Request, now_s: float) -> None:
        """Charge the prompt."""
        super().admit(request, now_s)
        self._charge(request.tenant, request.prompt_tokens)

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        """Charge the tokens."""
        super().produced(request, tokens, now_s)
        self._charge(request.tenant, 2 * tokens)

    def _charge(self, tenant: str, cost: float) -> None:
        self._counters[tenant] = self._counters.get(tenant, 0.0) + cost


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tenants", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--policies", nargs="+", default=[*names(), SCAN])
    parser.add_argument("--requests", type=int, default=50_000, help="that are timed (scan: less)")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    best: dict[tuple[str, int], float] = {}
    for round_ in range(given.rounds):
        for tenants in given.tenants:
            for name in given.policies:
                count = min(given.requests, 10**7 // tenants) if name == SCAN else given.requests
                spent_us = _measure(name, tenants, count) * 1e6
                best[name, tenants] = min(spent_us, best.get((name, tenants), spent_us))
                print(f"round {round_ + 1}: {name}, {tenants}: {spent_us:.1f} us", file=sys.stderr)
    print(f"Python {platform.python_version()}, microseconds a request, best of {given.rounds}")
    print("| policy |" + "".join(f" {tenants:,} tenants |" for tenants in given.tenants))
    print("| --- |" + " --- |" * len(given.tenants))
    for name in given.policies:
        cells = "".join(f" {best[name, tenants]:,.1f} |" for tenants in given.tenants)
        print(f"| `{name}` |{cells}")


def _measure(name: str, tenants: int, count: int) -> float:
    """Seconds of processor time per request."""
    policy = Scan() if name == SCAN else policy_for(name, _unlimited(name))
    requests = _requests(tenants, tenants + count)
    for _ in range(tenants):
        policy.arrive(next(requests), 0.0)
    ahead = list(requests)
    gc.collect()
    began_s = time.process_time()
    _serve(policy, ahead)
    return (time.process_time() - began_s) / count


def _serve(policy: SchedulingPolicy, requests: list[Request]) -> None:
    running: deque[Request] = deque()
    for request in requests:
        now_s = request.arrival_s
        policy.arrive(request, now_s)
        head = policy.head(now_s)
        assert head is not None
        policy.admit(head, now_s)
        for _ in range(CHUNKS):
            policy.produced(head, CHUNK_TOKENS, now_s)
        running.append(head)
        if len(running) > RUNNING:
            policy.finish(running.popleft(), now_s)


def _requests(tenants: int, count: int) -> Iterator[Request]:
    """One of each tenant, then of random ones."""
    rng = random.Random(1)
    for number in range(count):
        tenant = number if number < tenants else rng.randrange(tenants)
        yield Request(
            str(number),
            f"tenant-{tenant}",
            prompt_tokens=rng.randint(1, 1_000),
            max_output_tokens=CHUNKS * CHUNK_TOKENS,
            arrival_s=max(0, number - tenants) / 1_000,
            app=f"app-{tenant % 20}",
            deadline_s=number / 1_000 + rng.random() * 60,
            output_tokens=CHUNKS * CHUNK_TOKENS,
        )


def _unlimited(name: str) -> dict[str, int]:
    """Options with which a quota refuses nobody, so that all do the same work."""
    return {"limit": 10**9} if name in ("rpm", "tpm") else {}


if __name__ == "__main__":
    main()
