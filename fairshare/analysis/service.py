"""Service: what each tenant was given, when, and at what price. Definitions: docs/metrics.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairshare.analysis.arrays import Floats, Ints, Mask, Requests

PROMPT_PRICE = 1.0
OUTPUT_PRICE = 2.0  # prices of VTC (arXiv 2401.00588): an output token counts twice
_SHORTEST_DECODE_S = 1e-5  # VTC's evaluation leaves out what decoded faster than that


@dataclass(frozen=True, slots=True)
class Flow:
    """Amounts that came at one moment each, and amounts that came evenly over a stretch.

    Times are seconds; ``owner`` and ``spread_owner`` are indices of tenants.
    """

    when: Floats
    amount: Floats
    owner: Ints
    begin: Floats
    finish: Floats
    spread: Floats
    spread_owner: Ints

    def __add__(self, other: Flow) -> Flow:
        columns = (
            np.concatenate((getattr(self, name), getattr(other, name))) for name in self.__slots__
        )
        return Flow(*columns)

    def priced(self, price: float) -> Flow:
        """The same at so much apiece."""
        return Flow(
            self.when, self.amount * price, self.owner,
            self.begin, self.finish, self.spread * price, self.spread_owner,
        )  # fmt: skip

    def between(self, edges: Floats) -> Floats:
        """What came in each half-open stretch between ``edges``, of all tenants together."""
        index = np.searchsorted(edges, self.when, side="right") - 1
        inside = (index >= 0) & (index < len(edges) - 1)
        found = np.bincount(index[inside], self.amount[inside], len(edges) - 1)
        if len(self.spread):
            together = np.zeros_like(self.spread_owner)
            found = found + np.diff(self._spread_until(edges, together, 1)[0])
        return found.astype(np.float64)

    def by_tenant(self, edges: Floats, tenants: int) -> Floats:
        """What came in each half-open stretch between ``edges``: tenants x stretches."""
        stretches = len(edges) - 1
        index = np.searchsorted(edges, self.when, side="right") - 1
        inside = (index >= 0) & (index < stretches)
        place = self.owner[inside] * stretches + index[inside]
        sums = np.bincount(place, self.amount[inside], tenants * stretches)
        found: Floats = sums.astype(np.float64).reshape(tenants, stretches)
        if len(self.spread):
            found += np.diff(self._spread_until(edges, self.spread_owner, tenants), axis=1)
        return found

    def _spread_until(self, edges: Floats, owner: Ints, tenants: int) -> Floats:
        """What of the evenly coming amounts had come until each edge, by owner."""
        length = self.finish - self.begin
        until = np.empty((tenants, len(edges)))
        for number, edge in enumerate(edges):
            share = np.clip((edge - self.begin) / length, 0.0, 1.0)
            until[:, number] = np.bincount(owner, self.spread * share, tenants)
        return until


def output_flow(requests: Requests) -> Flow:
    """Output tokens as they arrived.

    Those of an answer that was not streamed arrive at its end. Of a streamed answer whose chunks
    nobody timed (imported results) they are taken to come evenly between first token and end.
    """
    counts = requests.chunk_counts
    even = untimed_streams(requests)
    known = (requests.output_tokens > 0) & ~np.isnan(requests.end_s)
    whole = (counts == 0) & known & ~even
    return Flow(
        when=np.concatenate((requests.chunk_s, requests.end_s[whole])),
        amount=np.concatenate((requests.chunk_tokens, requests.output_tokens[whole])),
        owner=np.concatenate((np.repeat(requests.tenant, counts), requests.tenant[whole])),
        begin=requests.first_token_s[even],
        finish=requests.end_s[even],
        spread=requests.output_tokens[even],
        spread_owner=requests.tenant[even],
    )


def untimed_streams(requests: Requests) -> Mask:
    """Answers of which only the first token and the end were timed, and the tokens counted."""
    tokens = (requests.chunk_counts == 0) & (requests.output_tokens > 0)
    found: Mask = tokens & (requests.first_token_s < requests.end_s)
    return found


def prompt_flow(requests: Requests) -> Flow:
    """Prompt tokens, counted as processed when the first token arrived."""
    when = np.where(
        np.isnan(requests.first_token_s) & requests.ok, requests.end_s, requests.first_token_s
    )
    known = ~np.isnan(when) & ~np.isnan(requests.prompt_tokens)
    return moments(when[known], requests.prompt_tokens[known], requests.tenant[known])


def moments(when: Floats, amount: Floats, owner: Ints) -> Flow:
    """A flow of amounts that came at one moment each."""
    none = np.zeros(0)
    return Flow(when, amount, owner, none, none, none, np.zeros(0, np.int64))


def service_flow(requests: Requests) -> Flow:
    """Service as it was produced: prompt tokens at the first token, twice the output tokens."""
    return prompt_flow(requests).priced(PROMPT_PRICE) + output_flow(requests).priced(OUTPUT_PRICE)


def charged(requests: Requests) -> Floats:
    """The whole service of each request: its prompt and twice its output, as far as known."""
    prompt = PROMPT_PRICE * np.nan_to_num(requests.prompt_tokens, nan=0.0)
    found: Floats = prompt + OUTPUT_PRICE * _output(requests)
    return found


def computed_tokens(requests: Requests) -> Floats:
    """Prompt and output tokens of each request: the server's counts, else what arrived."""
    found: Floats = np.nan_to_num(requests.prompt_tokens, nan=0.0) + _output(requests)
    return found


def _output(requests: Requests) -> Floats:
    known = ~np.isnan(requests.output_tokens)
    return np.where(known, requests.output_tokens, requests.counted_tokens)


def evenly_charged(requests: Requests) -> tuple[Requests, Flow]:
    """VTC's own crediting: all of a request's service evenly from its first to its last token.

    Returns the requests that it counts (answered, and decoded for at least 10 microseconds) and
    their flow.
    """
    last_s = requests.end_s.copy()
    streamed = requests.chunk_counts >= 2
    last_s[streamed] = requests.chunk_s[requests.chunk_from[1:][streamed] - 1]
    counted = requests.ok & (last_s - requests.first_token_s >= _SHORTEST_DECODE_S)
    kept = requests.select(counted)
    none = np.zeros(0)
    flow = Flow(
        none, none, np.zeros(0, np.int64),
        kept.first_token_s, last_s[counted], charged(kept), kept.tenant,
    )  # fmt: skip
    return kept, flow


def arrival_s(requests: Requests) -> Floats:
    """When each request was there to be served: when it was meant to be sent, or was earlier."""
    found: Floats = np.fmin(requests.intended_s, requests.sent_s)
    return found
