"""The driver sends what, when and as long as it is told, and every request becomes one record."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import time

import pytest
from load_bench import BENCH, closed, requests, run, scheduled, target, tenant

from fairshare.errors import SpecError
from fairshare.load.driver import drive
from fairshare.load.load import TenantLoad
from fairshare.records import ErrorKind, Phase, RequestRecord, TransportKind
from fairshare.spec.scenario import Api, Timing
from fairshare.testing.behaviour import Behaviour
from fairshare.testing.fake_server import FakeServer
from fairshare.units import NS_PER_S

QUICK = Behaviour(ttft_s=0.005, itl_s=0.001)


@pytest.fixture(params=[TransportKind.STREAM, TransportKind.AIOHTTP], autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> TransportKind:
    """Each test, over each transport."""
    monkeypatch.setattr(BENCH, "transport", request.param)
    kind: TransportKind = request.param
    return kind


async def test_closed_loop_keeps_n_in_flight_and_records_each_once() -> None:
    """N clients mean N requests at the server, never more; nothing is lost or doubled."""
    async with FakeServer(QUICK) as server:
        outcome = await run([closed(server, 4)], Timing(warmup_s=0.1, window_s=0.5, drain_s=5))
        assert server.peak_running == 4
    ids = [record.id for record in outcome.records]
    assert sorted(ids) == sorted(set(ids))
    assert len(ids) == len(server.seen) > 12
    assert all(record.ok for record in outcome.records)
    assert all(record.output_tokens == 8 for record in outcome.records)
    assert outcome.report.client["concurrency"]["a"]["requested"] == 4
    assert outcome.windows == ["warmup", "measure", "drain"]


async def test_phases_follow_intended_times() -> None:
    """What is meant for before the window is warm-up, however late it ends; nothing comes after."""
    async with FakeServer(Behaviour(ttft_s=0.05)) as server:
        outcome = await run([closed(server, 2)], Timing(warmup_s=0.2, window_s=0.4, drain_s=5))
    start, end = outcome.report.window_ns
    assert (start, end) == (200_000_000, 600_000_000)
    for record in outcome.records:
        expected = Phase.MEASURE if record.intended_ns >= start else Phase.WARMUP
        assert record.phase is expected
        assert record.intended_ns < end
    assert {record.phase for record in outcome.records} == {Phase.WARMUP, Phase.MEASURE}


async def test_times_of_a_record_are_in_order_and_match_what_the_server_did() -> None:
    """TTFT stops at the first token, not at role or empty chunks; no chunk precedes its write."""
    behaviour = Behaviour(ttft_s=0.08, itl_s=0.02, empty_chunks=2, tokens_per_chunk=3)
    async with FakeServer(behaviour) as server:
        load = closed(server, 1, api=Api.CHAT)
        outcome = await run([load], Timing(warmup_s=0, window_s=5, drain_s=5, requests=1))
    record, seen = outcome.records[0], server.seen[0]
    assert record.chunk_tokens == seen.token_counts == [3, 3, 2]
    assert record.empty_chunks == 3  # the role's as well
    assert record.sent_ns is not None
    assert record.first_token_ns == record.chunk_ns[0]
    assert record.headers_ns is not None
    assert record.end_ns is not None
    assert record.headers_ns < record.first_token_ns
    assert record.first_token_ns - record.sent_ns >= 80_000_000
    written = [at - seen.received_ns for at in seen.token_ns]
    for index, at in enumerate(record.chunk_ns):
        assert at - record.sent_ns >= written[index]
    gaps = [b - a for a, b in itertools.pairwise(record.chunk_ns)]
    assert sum(gaps) == pytest.approx(written[-1] - written[0], abs=30_000_000)
    assert record.end_ns >= record.chunk_ns[-1]


async def test_tokens_that_differ_from_usage_are_told() -> None:
    """A server that tells neither ids nor continuous usage has its chunks taken for one token."""
    async with FakeServer(Behaviour(tokens_per_chunk=4)) as server:
        for extras, differing in ((True, 0), (False, 3)):
            load = closed(server, continuous_usage=extras)
            outcome = await run([load], Timing(warmup_s=0, window_s=5, drain_s=5, requests=3))
            tokens = outcome.report.client["tokens"]["a"]
            assert tokens["differing_requests"] >= differing
            assert (tokens["counted"] == tokens["usage"]) is extras


async def test_tokens_without_text_are_tokens() -> None:
    """Byte-level tokens have empty text; token ids tell them."""
    async with FakeServer(Behaviour(silent_text=True)) as server:
        outcome = await run([closed(server)], Timing(warmup_s=0, window_s=5, requests=1))
    assert sum(outcome.records[0].chunk_tokens) == 8


async def test_open_loop_keeps_its_schedule_while_the_server_is_slow() -> None:
    """A slow server delays no send, and its queue shows in the latency from the schedule."""
    rng = random.Random(5)
    offsets = sorted(rng.uniform(0, 0.4) for _ in range(12))
    async with FakeServer(Behaviour(ttft_s=0.2, max_running=1)) as server:
        outcome = await run(
            [scheduled(server, offsets)], Timing(warmup_s=0, window_s=0.5, drain_s=20)
        )
    records = sorted(outcome.records, key=lambda record: record.intended_ns)
    assert [record.intended_ns for record in records] == [round(s * NS_PER_S) for s in offsets]
    assert all(record.ok for record in records)
    sent = [record.sent_ns or 0 for record in records]
    ended = sorted(record.end_ns or 0 for record in records)
    assert all(at >= record.intended_ns for at, record in zip(sent, records, strict=True))
    assert max(sent) < ended[4]  # 12 requests of 0.2 s, one at a time, were all sent within 1 s
    slowest = max((record.end_ns or 0) - record.intended_ns for record in records)
    assert slowest > 12 * 200_000_000 - 500_000_000
    client = outcome.report.client
    assert client["schedule_lag_ms"]["p50"] >= 0
    assert client["request_rate_per_s"]["a"]["requested"] == pytest.approx(12 / 0.5)
    assert client["concurrency"]["a"]["peak"] >= 8  # the server has one seat: the rest wait there


async def test_open_loop_sends_nothing_meant_for_after_the_window() -> None:
    """The plan may go on; the window ends it."""
    async with FakeServer(QUICK) as server:
        outcome = await run(
            [scheduled(server, [0.0, 0.05, 0.29, 0.31, 5.0])],
            Timing(warmup_s=0.1, window_s=0.2, drain_s=5),
        )
    assert sorted(record.id for record in outcome.records) == ["a-0", "a-1", "a-2"]


async def test_all_tenants_start_on_one_barrier() -> None:
    """Every client's first request is meant for t = 0, and none waits for another tenant's."""
    async with FakeServer(Behaviour(ttft_s=0.3)) as one, FakeServer(Behaviour(ttft_s=0.3)) as two:
        loads = [closed(one, 8, "a"), closed(two, 8, "b"), scheduled(two, [0.0], "c")]
        outcome = await run(loads, Timing(warmup_s=0, window_s=0.2, drain_s=5))
    assert len(outcome.records) == 17
    assert {record.intended_ns for record in outcome.records} == {0}
    assert max(record.sent_ns or 0 for record in outcome.records) < min(
        record.end_ns or 0 for record in outcome.records
    )


async def test_barrier_waits_until_the_loop_keeps_time() -> None:
    """What else begins with a cell delays the barrier, not the requests behind it."""
    busy_until_ns = 0

    async def begin_something() -> None:
        nonlocal busy_until_ns
        for _ in range(10):
            time.sleep(0.02)  # noqa: ASYNC251  (blocking is what is to be waited for)
            await asyncio.sleep(0.001)
        busy_until_ns = time.monotonic_ns()

    async with FakeServer() as server:
        beginning = asyncio.create_task(begin_something())
        timing = Timing(warmup_s=0, window_s=0.1, drain_s=1)
        await run([closed(server)], timing)
        await beginning
        assert server.seen[0].received_ns > busy_until_ns


async def test_slow_listener_delays_no_first_request() -> None:
    """Whoever is told of the warm-up has heard it before the barrier."""
    records: list[RequestRecord] = []
    async with FakeServer() as server:
        await drive(
            [closed(server)],
            Timing(warmup_s=0.05, window_s=0.05, drain_s=1),
            records.append,
            stop=asyncio.Event(),
            on_window=lambda phase: time.sleep(0.3) if phase == "warmup" else None,
        )
    first = min(records, key=lambda record: record.intended_ns)
    assert first.sent_ns is not None
    assert first.sent_ns - first.intended_ns < 0.25 * NS_PER_S


async def test_drain_lets_the_windows_requests_finish() -> None:
    """A request that was in flight at the window's end counts as what it becomes."""
    async with FakeServer(Behaviour(ttft_s=0.4)) as server:
        outcome = await run([closed(server, 2)], Timing(warmup_s=0, window_s=0.2, drain_s=10))
    assert [record.error for record in outcome.records] == [None, None]
    assert outcome.report.end_ns >= 400_000_000


async def test_what_outlives_the_drain_is_unfinished() -> None:
    """The drain ends, and what has not come back by then is cancelled and recorded as such."""
    async with FakeServer(Behaviour(ttft_s=60)) as server:
        outcome = await run([closed(server, 3)], Timing(warmup_s=0, window_s=0.2, drain_s=0.2))
    assert [record.error for record in outcome.records] == [ErrorKind.UNFINISHED] * 3
    assert all(record.end_ns is not None for record in outcome.records)
    assert not outcome.report.stopped


async def test_window_ends_when_each_tenant_has_its_requests() -> None:
    """With a number of requests the slow tenant decides; the fast one keeps up its load."""
    fast, slow = Behaviour(ttft_s=0.01), Behaviour(ttft_s=0.1)
    async with FakeServer(fast) as one, FakeServer(slow) as two:
        loads = [closed(one, 1, "a"), closed(two, 1, "b")]
        outcome = await run(loads, Timing(warmup_s=0.05, window_s=30, drain_s=5, requests=4))
    start, end = outcome.report.window_ns
    done = {
        name: [
            record
            for record in outcome.records
            if record.tenant == name
            and record.phase is Phase.MEASURE
            and record.end_ns is not None
            and record.end_ns <= end
        ]
        for name in ("a", "b")
    }
    assert len(done["b"]) == 4
    assert len(done["a"]) > 4
    assert end - start < 30 * NS_PER_S


async def test_window_is_the_limit_when_requests_do_not_come_back() -> None:
    """A number of requests that is never reached ends with the window."""
    async with FakeServer(Behaviour(ttft_s=60)) as server:
        outcome = await run(
            [closed(server)], Timing(warmup_s=0, window_s=0.3, drain_s=0.1, requests=2)
        )
    assert outcome.report.window_ns == (0, 300_000_000)


async def test_rounds_start_on_common_barriers_after_everything_came_back() -> None:
    """Each round starts for all tenants at once, when the last one's requests have ended."""
    async with FakeServer(Behaviour(ttft_s=0.05)) as one, FakeServer(Behaviour(ttft_s=0.2)) as two:
        loads = [closed(one, 2, "a"), closed(two, 2, "b")]
        timing = Timing(warmup_s=0.1, window_s=30, drain_s=5, rounds=3, round_s=0.1)
        outcome = await run(loads, timing)
    measured = [record for record in outcome.records if record.phase is Phase.MEASURE]
    assert {record.round for record in measured} == {0, 1, 2}
    assert {r.round for r in outcome.records if r.phase is Phase.WARMUP} == {None}
    for number in range(3):
        of_round = [record for record in measured if record.round == number]
        barrier = min(record.intended_ns for record in of_round)
        assert {r.intended_ns for r in of_round if r.tenant == "b"} == {barrier}
        earlier = [r.end_ns or 0 for r in measured if r.round is not None and r.round < number]
        assert all(ended <= barrier for ended in earlier)
        assert all(record.intended_ns < barrier + 100_000_000 for record in of_round)
    start, end = outcome.report.window_ns
    assert start <= min(record.intended_ns for record in measured)
    assert end >= max(record.end_ns or 0 for record in measured)


async def test_rounds_cut_an_open_loop_plan() -> None:
    """The plan's time stands still between rounds: each round sends its own part of it."""
    offsets = [0.05, 0.10, 0.15, 0.25, 0.35]
    async with FakeServer(Behaviour(ttft_s=0.3)) as server:
        timing = Timing(warmup_s=0.1, window_s=30, drain_s=5, rounds=3, round_s=0.1)
        outcome = await run([scheduled(server, offsets)], timing)
    records = {record.id: record for record in outcome.records}
    assert [records[f"a-{n}"].round for n in range(5)] == [None, 0, 0, 1, 2]
    offset = records["a-2"].intended_ns - records["a-1"].intended_ns
    assert offset == pytest.approx(50_000_000, abs=1000)
    assert records["a-3"].intended_ns >= (records["a-2"].end_ns or 0)


async def test_think_time_is_part_of_the_intention() -> None:
    """A client that thinks is not late: its next request is meant for after the pause."""
    async with FakeServer(QUICK) as server:
        load = closed(server, 1, think_s=0.1)
        outcome = await run([load], Timing(warmup_s=0, window_s=0.6, drain_s=5))
    records = sorted(outcome.records, key=lambda record: record.intended_ns)
    assert len(records) >= 3
    for before, after in itertools.pairwise(records):
        assert after.intended_ns - (before.end_ns or 0) == 100_000_000
        assert (after.sent_ns or 0) >= after.intended_ns


async def test_stop_ends_the_run_and_keeps_every_record() -> None:
    """Ctrl-C or a dead server: nothing more is sent, and every request has its record."""
    stop = asyncio.Event()
    seen: list[RequestRecord] = []

    def on_record(record: RequestRecord) -> None:
        seen.append(record)
        if len(seen) == 3:
            stop.set()

    slow, fast = Behaviour(ttft_s=60), Behaviour(ttft_s=0.02)
    async with FakeServer(fast) as one, FakeServer(slow) as two:
        loads = [closed(one, 1, "a"), closed(two, 2, "b"), scheduled(two, [0.0, 9.0], "c")]
        timing = Timing(warmup_s=0, window_s=30, drain_s=0.3)
        outcome = await run(loads, timing, stop=stop, on_record=on_record)
        asked = len(one.seen) + len(two.seen)
    assert outcome.report.stopped
    assert len(outcome.records) == asked
    errors = [record.error for record in outcome.records if record.tenant != "a"]
    assert errors == [ErrorKind.UNFINISHED] * 3
    assert outcome.report.end_ns < 20 * NS_PER_S


async def test_stop_lets_answers_under_way_come_to_their_end() -> None:
    """The first Ctrl-C drains: nothing more is sent, and nothing that would have ended is lost."""
    stop = asyncio.Event()
    async with FakeServer(Behaviour(ttft_s=0.4)) as server:
        timing = Timing(warmup_s=0, window_s=30, drain_s=30)
        driving = asyncio.create_task(run([closed(server, 2)], timing, stop=stop))
        await server.when_running(2)
        stop.set()
        outcome = await asyncio.wait_for(driving, 20)
    assert outcome.report.stopped
    assert [record.error for record in outcome.records] == [None, None]


async def test_stop_before_the_start_sends_nothing() -> None:
    """A run that is stopped before its barrier has no requests and no window."""
    stop = asyncio.Event()
    stop.set()
    async with FakeServer(QUICK) as server:
        outcome = await run([closed(server)], Timing(warmup_s=1, window_s=30), stop=stop)
        assert server.seen == []
    assert outcome.report.stopped
    start, end = outcome.report.window_ns
    assert start == end


async def test_failing_sink_ends_the_run_with_its_error() -> None:
    """A full disk is not silence: the driver stops and raises what the sink raised."""
    calls = 0

    def full(record: RequestRecord) -> None:
        nonlocal calls
        calls += 1
        raise OSError(28, "No space left on device")

    async with FakeServer(QUICK) as server:
        with pytest.raises(OSError, match="No space left"):
            await run([closed(server, 2)], Timing(warmup_s=0, window_s=30), on_record=full)
    assert calls >= 1


async def test_cancelled_drive_leaves_nothing_in_flight() -> None:
    """Cancelling the driver itself still turns every request into a record."""
    records: list[RequestRecord] = []
    async with FakeServer(Behaviour(ttft_s=60)) as server:
        timing = Timing(warmup_s=0, window_s=30)
        task = asyncio.create_task(run([closed(server, 3)], timing, on_record=records.append))
        await server.when_running(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [record.error for record in records] == [ErrorKind.UNFINISHED] * 3


async def test_failure_to_plan_a_request_ends_the_run() -> None:
    """A plan that breaks in the middle is an error of the run, not a tenant that falls silent."""
    async with FakeServer(QUICK) as server:
        plan = itertools.chain(itertools.islice(requests(), 4), broken())
        load = TenantLoad(tenant(), target(server), 1, lambda: plan)
        with pytest.raises(SpecError, match="line 5"):
            await run([load], Timing(warmup_s=0, window_s=30))


def broken():  # type: ignore[no-untyped-def]  # an iterator that only raises has no item type
    """A plan that fails when it is asked."""
    raise SpecError("prompts.jsonl, line 5: not JSON")
    yield


async def test_request_without_a_usable_prompt_is_refused_before_the_start() -> None:
    """Token ids cannot be sent to a chat: said once, clearly, with nothing sent."""
    async with FakeServer(QUICK) as server:
        plan = (request for request in requests())
        load = TenantLoad(tenant(), target(server, api=Api.CHAT), 1, lambda: no_text(plan))
        with pytest.raises(SpecError, match="text prompts"):
            await run([load], Timing(warmup_s=0, window_s=30))
        assert server.seen == []


def no_text(plan):  # type: ignore[no-untyped-def]  # a test's generator
    """The same requests as token ids only."""
    for request in plan:
        request.prompt_text = None
        yield request


async def test_garbage_collection_is_restored() -> None:
    """The collector is paused for the run and as it was afterwards."""
    during: list[bool] = []
    async with FakeServer(QUICK) as server:
        await run(
            [closed(server)],
            Timing(warmup_s=0, window_s=5, requests=1),
            on_record=lambda record: during.append(gc.isenabled()),
        )
    assert during[0] is False
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("api", "stream"),
    [
        (Api.COMPLETIONS, True),
        (Api.COMPLETIONS, False),
        (Api.CHAT, True),
        (Api.CHAT, False),
        (Api.TGI, True),
        (Api.TGI, False),
    ],
)
@pytest.mark.parametrize("extras", [True, False])
async def test_every_protocol_gives_complete_records(api: Api, stream: bool, extras: bool) -> None:
    """All endpoints, streamed or whole, with vLLM's extras or plain, count the same tokens."""
    async with FakeServer(Behaviour(ttft_s=0.005, cached_tokens=2)) as server:
        load = closed(
            server, 2, api=api, stream=stream, continuous_usage=extras, token_id_prompts=extras
        )
        outcome = await run([load], Timing(warmup_s=0, window_s=10, drain_s=5, requests=3))
    for record in outcome.records:
        assert record.error is None, record.error_text
        assert (record.status, record.finish_reason, record.output_tokens) == (200, "length", 8)
        assert (record.prompt_tokens, sum(record.chunk_tokens)) == (3, 8)
        assert len(record.chunk_ns) == (8 if stream else 1)
        assert record.cached_tokens == (None if api is Api.TGI else 2)


async def test_connections_are_reused() -> None:
    """A closed loop of one client keeps to one connection instead of opening one a request."""
    async with FakeServer(QUICK) as server:
        await run([closed(server, 1)], Timing(warmup_s=0, window_s=10, drain_s=5, requests=10))
        assert len(server.peers) == 1
