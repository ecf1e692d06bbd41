"""Interactions: which were completed, how long they took, and what was spent in vain.

Definitions: docs/metrics.md.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from fairshare.analysis.arrays import ERROR_KINDS, Floats, Ints, Mask, Requests
from fairshare.analysis.model import INTERACTION_TIMES, Interactions, Latency
from fairshare.analysis.quantiles import percentile_intervals
from fairshare.analysis.service import computed_tokens
from fairshare.analysis.stats import Interval, mean, wilson
from fairshare.records import ErrorKind

_UNFINISHED = ERROR_KINDS.index(ErrorKind.UNFINISHED)


@dataclass(frozen=True, slots=True)
class _Begun:
    """Columns, one entry per interaction, in the order in which they first had an answer."""

    tenant: Ints
    app: Ints
    calls: Ints
    calls_sent: Ints
    completed: Mask
    failed: Mask
    broken: Mask  # failed after at least one answer
    unfinished: Mask
    start_s: Floats  # the first call's intended time
    sent_s: Floats
    end_s: Floats
    think_s: Floats  # between an answer and when the next call was due, added up
    tokens: Floats

    def __len__(self) -> int:
        return len(self.tenant)

    def select(self, mask: Mask) -> _Begun:
        """The interactions at which ``mask`` is true."""
        return replace(self, **{f.name: getattr(self, f.name)[mask] for f in fields(self)})


def interactions(requests: Requests) -> Interactions | None:
    """What became of the interactions begun in the measured window.

    Begun when their first call was meant to be sent. None where no request belongs to one.
    """
    begun = _begun(requests)
    if begun is None:
        return None
    return replace(_summary(begun), apps=_by_app(begun, requests.apps))


def _begun(requests: Requests) -> _Begun | None:
    order = np.lexsort((requests.call, requests.interaction))
    order = order[requests.interaction[order] >= 0]
    if not len(order):
        return None
    first = np.flatnonzero(np.diff(requests.interaction[order], prepend=-1))
    last = np.append(first[1:], len(order)) - 1
    error, calls = requests.error[order], requests.calls[order][first]
    good = np.add.reduceat(np.equal(error, -1).astype(np.int64), first)
    unfinished = np.bitwise_or.reduceat(np.equal(error, _UNFINISHED), first)
    calls_sent = last - first + 1
    failed = (good < calls_sent) & ~unfinished
    pause_s = np.zeros(len(order))
    # Calls of imported chains are sent by a schedule, whether or not the one before is answered.
    pause_s[1:] = np.fmax(requests.intended_s[order][1:] - requests.end_s[order][:-1], 0.0)
    pause_s[first] = 0.0
    begun = _Begun(
        tenant=requests.tenant[order][first],
        app=requests.app[order][first],
        calls=calls,
        calls_sent=calls_sent,
        completed=good == calls,
        failed=failed,
        broken=failed & (good > 0),
        unfinished=unfinished,
        start_s=requests.intended_s[order][first],
        sent_s=requests.sent_s[order][first],
        end_s=requests.end_s[order][last],
        think_s=np.add.reduceat(pause_s, first),
        tokens=np.add.reduceat(computed_tokens(requests)[order], first),
    )
    return begun.select(requests.measured[order][first])


def _by_app(begun: _Begun, apps: tuple[str, ...]) -> dict[str, Interactions]:
    """By application, where at least one tenant has several."""
    mixed = any(
        len(np.unique(begun.app[begun.tenant == tenant])) > 1 for tenant in np.unique(begun.tenant)
    )
    if not mixed:
        return {}
    found = {apps[number]: number for number in np.unique(begun.app) if number >= 0}
    return {app: _summary(begun.select(begun.app == found[app])) for app in sorted(found)}


def _summary(begun: _Begun) -> Interactions:
    count, completed = len(begun), int(begun.completed.sum())
    undecided = ~begun.completed & ~begun.failed
    failed, cut = int(begun.failed.sum()), int(undecided.sum())
    tokens, wasted, cut_tokens = (
        int(part.sum())
        for part in (begun.tokens, begun.tokens[begun.failed], begun.tokens[undecided])
    )
    times = _times(begun.select(begun.completed))
    return Interactions(
        begun=count,
        completed=completed,
        failed=failed,
        broken=int(begun.broken.sum()),
        cut=cut,
        unfinished=int(begun.unfinished.sum()),
        completion_rate=_share(completed, completed + failed),
        completion_low=_share(completed, count),
        completion_high=_share(completed + cut, count),
        calls_mean=mean(begun.calls.astype(np.float64)),
        calls_sent_mean=mean(begun.calls_sent.astype(np.float64)),
        tokens=tokens,
        wasted_tokens=wasted,
        cut_tokens=cut_tokens,
        wasted_share=_share(wasted, tokens - cut_tokens),
        latency={name: Latency.of(values) for name, values in times.items()},
        intervals=_intervals(completed, cut, count, times["interaction_e2e"]),
    )


def _times(completed: _Begun) -> dict[str, Floats]:
    whole = completed.end_s - completed.start_s
    values = (
        whole,
        completed.end_s - completed.sent_s,
        whole - completed.think_s,
        completed.think_s,
    )
    return dict(zip(INTERACTION_TIMES, values, strict=True))


def _intervals(completed: int, cut: int, count: int, e2e_s: Floats) -> dict[str, Interval]:
    """Only what holds whatever would have become of the interactions that were cut.

    The rate's interval reaches from where all of them fail to where none does. How long they
    would have taken nobody knows, so latencies have intervals only where none was cut.
    """
    low, high = wilson(completed, count), wilson(completed + cut, count)
    found: dict[str, Interval | None] = {}
    if low is not None and high is not None and cut < count:
        found["interaction_completion_rate"] = Interval(low.low, high.high)
    if not cut:
        p50, p99 = percentile_intervals(e2e_s, (50, 99))
        found |= {"interaction_e2e_p50_s": p50, "interaction_e2e_p99_s": p99}
    return {name: interval for name, interval in found.items() if interval is not None}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
