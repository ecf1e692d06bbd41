"""What was done for a tenant, what was refused, and what was done in vain."""

from __future__ import annotations

from typing import Any

import pytest

from fairshare.analysis.arrays import columns
from fairshare.analysis.interactions import interactions
from fairshare.analysis.metrics import tenant_metrics
from fairshare.analysis.model import Work
from fairshare.analysis.work import work
from fairshare.records import ErrorKind, Phase, RequestRecord

S = 1_000_000_000


def request(tenant: str = "a", **values: Any) -> RequestRecord:
    """A request of 10 prompt tokens that was sent at 1 s, and what became of it."""
    base: dict[str, Any] = {
        "id": "q", "tenant": tenant, "server": "s", "phase": Phase.MEASURE,
        "intended_ns": S, "sent_ns": S, "end_ns": 4 * S,
    }  # fmt: skip
    return RequestRecord(**{**base, **values})


def answered(tenant: str = "a", **values: Any) -> RequestRecord:
    """An answer of 4 tokens, at 2 s, twice at 3 s, and 4 s."""
    return request(
        tenant, first_token_ns=2 * S, chunk_ns=[2 * S, 3 * S, 4 * S], chunk_tokens=[1, 2, 1],
        prompt_tokens=10, output_tokens=4, **values,
    )  # fmt: skip


def of(*records: RequestRecord) -> Work:
    """The work for all of them, in a window of 10 s of a run of 20."""
    requests = columns(records)
    return work(requests, (0.0, 10.0), 20.0, interactions(requests))


def test_service_by_both_creditings() -> None:
    """As produced: 10 + 2 at 2 s, 4 at 3 s, 2 at 4 s. Evenly: 18 from 2 to 4 s."""
    requests = columns([answered()])
    early = work(requests, (0.0, 2.5), None, None)
    assert (early.service, early.service_rate) == (12.0, 4.8)
    assert early.service_even == pytest.approx(18 / 4)
    assert of(answered()).service == of(answered()).service_even == 18


def test_refused_requests() -> None:
    """An answer 429 and an abort before the first token are refusals; a broken answer is not."""
    found = of(
        answered(),
        request(error=ErrorKind.THROTTLED),
        request(error=ErrorKind.ABORTED),
        request(error=ErrorKind.ABORTED, first_token_ns=2 * S),
        request(error=ErrorKind.DISCONNECT),
        request(error=ErrorKind.THROTTLED, phase=Phase.WARMUP),
    )
    assert (found.throttled, found.throttled_rate) == (2, 2 / 5)


def test_work_in_vain() -> None:
    """Tokens of a broken answer, and of all calls of a broken chain; not what was cut."""
    chain = {"interaction": "i", "calls": 3}
    found = of(
        answered(),
        request(
            error=ErrorKind.STALLED, first_token_ns=2 * S, chunk_ns=[2 * S, 3 * S],
            chunk_tokens=[1, 2], prompt_tokens=10,
        ),
        answered(**chain, call=1),
        request(**chain, call=2, error=ErrorKind.TIMEOUT),
        request(error=ErrorKind.UNFINISHED, prompt_tokens=10),
    )  # fmt: skip
    assert found.wasted_work_tokens == 13 + 14
    assert found.wasted_work_share == pytest.approx(27 / (14 + 27))


def test_throughput_of_the_whole_run() -> None:
    """Prompt and output tokens of answers over the run's 20 s, as other tools count them."""
    assert of(answered(), request(error=ErrorKind.CONNECT)).run_tokens_per_s == 14 / 20


def test_shares_add_up() -> None:
    """A tenant's share is of the service of all; theirs together are 1."""
    requests = columns([answered("a"), answered("a"), answered("b")])
    rows = tenant_metrics(requests, (0.0, 10.0), [{"name": "a"}, {"name": "b"}])
    assert [row.values()["service_share"] for row in rows] == [
        pytest.approx(2 / 3), pytest.approx(1 / 3), 1.0,
    ]  # fmt: skip


def test_nothing_served_has_no_shares() -> None:
    """Without any service there is nothing to have a share of."""
    found = of(request(error=ErrorKind.CONNECT))
    assert (found.service, found.service_share, found.wasted_work_share) == (0.0, None, None)
