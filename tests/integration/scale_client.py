"""The driver in a process of its own, on one core: many streams at once, and what they cost.

``python scale_client.py PORT STREAMS REQUESTS TOKENS TRANSPORT [keep]`` holds STREAMS in flight
until REQUESTS have been measured, and prints one JSON line. With ``keep`` the records are kept,
else they are counted and dropped, as by a writer.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairshare.load.driver import drive
from fairshare.load.load import TenantLoad
from fairshare.load.target import Target
from fairshare.records import RequestRecord, TransportKind
from fairshare.spec.lengths import FixedLength
from fairshare.spec.scenario import Api, Tenant, Timing
from fairshare.spec.workload import Sampling, SyntheticPrompts
from fairshare.workload.requests import PlannedRequest

PROMPT = list(range(32))


def load(port: int, streams: int, tokens: int) -> TenantLoad:
    """A closed loop of so many clients."""
    length = FixedLength(tokens=tokens)
    tenant = Tenant(name="a", prompts=SyntheticPrompts(tokens=length), output=length)
    url = f"http://127.0.0.1:{port}"
    target = Target(
        "a", "s0", url, "mock", Api.COMPLETIONS, True, None, True, True, Sampling(), 100, 100
    )

    def plan() -> Iterator[PlannedRequest]:
        for number in itertools.count():
            yield PlannedRequest(str(number), "a", None, PROMPT, None, len(PROMPT), tokens)

    return TenantLoad(tenant, target, streams, plan)


def rss_kib() -> int:
    """Resident memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


def peak_rss_kib() -> int:
    """The most memory this program was in; ``ru_maxrss`` would be that of a parent who forked."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


def main() -> None:
    """Run, and print what came of it."""
    port, streams, requests, tokens = map(int, sys.argv[1:5])
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    kept: list[RequestRecord] = []
    seen: dict[str, Any] = {"ok": 0, "chunks": 0, "ids": set(), "errors": {}, "rss_kib": []}

    def sink(record: RequestRecord) -> None:
        seen["ids"].add(int(record.id))
        seen["chunks"] += sum(record.chunk_tokens)
        if record.error is None:
            seen["ok"] += 1
        else:
            text = f"{record.error}: {record.error_text}"
            seen["errors"][text] = seen["errors"].get(text, 0) + 1
        if sys.argv[6:] == ["keep"]:
            kept.append(record)

    def on_window(_phase: str) -> None:
        seen["rss_kib"].append(rss_kib())

    timing = Timing(warmup_s=0, window_s=100, drain_s=60, requests=requests)
    report = asyncio.run(
        drive(
            [load(port, streams, tokens)],
            timing,
            sink,
            stop=asyncio.Event(),
            on_window=on_window,
            transport=TransportKind(sys.argv[5]),
        )
    )
    ids = seen.pop("ids")
    seen |= {
        "records": len(ids),
        "lost": len(set(range(len(ids))) - ids),
        "seconds": report.end_ns / 1e9,
        "peak_rss_kib": peak_rss_kib(),
        "end_rss_kib": rss_kib(),
        "client": report.client,
    }
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
