"""The scheduler that vLLM loads, in a vLLM of two dozen lines: who is next, charged and refused."""

from __future__ import annotations

import importlib
import json
import random
import stat
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fairshare.scheduling.bookkeeping import Bookkeeping
from fairshare.scheduling.policy import Refusal, Request
from fairshare.scheduling.queues import TenantQueues
from fairshare.vllm_plugins import fair_queue, interface
from tests.fake_vllm import AsyncScheduler, FakeRequest, RequestStatus, install, request


class Ledger(Bookkeeping[TenantQueues]):
    """Least served first; a prompt costs 1 a token, output 2. Refuses and throws out on demand."""

    name = "ledger"

    def __init__(self) -> None:
        super().__init__(TenantQueues())
        self.charged: Counter[str] = Counter()
        self.begun: set[Request] = set()
        self.finished: list[str] = []
        self.refunded: list[str] = []
        self.unwanted: set[str] = set()
        self.no_room: list[str] = []

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        """Some tenants are not wanted."""
        if request.tenant in self.unwanted:
            return Refusal("too many", 3.0)
        return super().arrive(request, now_s)

    def head(self, now_s: float) -> Request | None:
        """The first of the least served."""
        tenants = sorted(self._waiting.tenants(), key=lambda tenant: self.charged[tenant])
        return self._waiting.first(tenants[0]) if tenants else None

    def admit(self, request: Request, now_s: float) -> None:
        """Charge for the prompt, once."""
        super().admit(request, now_s)
        if request not in self.begun:
            self.begun.add(request)
            self.charged[request.tenant] += request.prompt_tokens

    def does_not_fit(self, now_s: float) -> list[tuple[Request, Refusal]]:
        """What is optional is thrown out."""
        head = self.head(now_s)
        assert head is not None
        self.no_room.append(head.id)
        if head.app != "optional":
            return []
        self.cancel(head, now_s)
        return [(head, Refusal("no room"))]

    def put_back(self, request: Request, now_s: float, *, preempted: bool) -> None:
        """What was not begun is paid back."""
        super().put_back(request, now_s, preempted=preempted)
        if not preempted:
            self.begun.discard(request)
            self.charged[request.tenant] -= request.prompt_tokens

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        """Charge for output."""
        super().produced(request, tokens, now_s)
        self.charged[request.tenant] += 2 * tokens

    def finish(self, request: Request, now_s: float) -> None:
        """Remember who was answered."""
        super().finish(request, now_s)
        self.finished.append(request.id)

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        """Remember whose end was our fault."""
        super().cancel(request, now_s, refund=refund)
        if refund:
            self.refunded.append(request.id)

    def counters(self) -> dict[str, float]:
        """What was charged."""
        return dict(self.charged)


class Bench:
    """A scheduler and its policy."""

    def __init__(self, scheduler: Any, policy: Ledger, decisions: Path) -> None:
        self.scheduler = scheduler
        self.policy = policy
        self._decisions = decisions
        self.told: dict[str, list[Any]] = {}

    def send(self, *requests: FakeRequest) -> None:
        """They come, in this order."""
        for each in requests:
            self.scheduler.add_request(each)

    def step(self) -> list[str]:
        """One step of the engine; the names of those that run in it."""
        running = self.scheduler.schedule()
        for client, outputs in self.scheduler.update_from_output(running, None).items():
            for one in outputs.outputs:
                self.told.setdefault(one.request_id, []).append((client, one))
        return [each.request_id for each in running]

    def serve(self) -> list[list[str]]:
        """Step until nothing is left."""
        steps = []
        while self.scheduler.has_unfinished_requests():
            steps.append(self.step())
            assert len(steps) < 1000
        return steps

    def serve_some(self, steps: int) -> None:
        """So many steps."""
        for _ in range(steps):
            self.step()

    def decisions(self) -> list[dict[str, Any]]:
        """What was written so far."""
        return [json.loads(line) for line in self._decisions.read_text("utf-8").splitlines()]


class Make:
    """Makes benches on a fake vLLM."""

    def __init__(self, module: Any, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.module = module
        self._patch = patch
        self._file = folder / "decisions.jsonl"

    def __call__(self, **values: Any) -> Bench:
        """A scheduler on so many slots and tokens of memory."""
        policy = Ledger()
        self._patch.setenv("FAIRSHARE_SCHEDULER", '{"policy": "ledger"}')
        self._patch.setenv("FAIRSHARE_SCHEDULER_DECISIONS", str(self._file))
        self._patch.setattr(self.module, "policy_told", lambda line: policy)
        return Bench(self.module.FairScheduler(**values), policy, self._file)


@pytest.fixture(name="make")
def _make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    install(monkeypatch)
    monkeypatch.delitem(sys.modules, "fairshare.vllm_plugins.fair_scheduler", raising=False)
    module = importlib.import_module("fairshare.vllm_plugins.fair_scheduler")
    monkeypatch.delitem(sys.modules, "fairshare.vllm_plugins.fair_scheduler")
    return Make(module, monkeypatch, tmp_path)


def test_a_light_tenant_does_not_wait_behind_a_heavy_one(make: Make) -> None:
    """Several are admitted in one step, each after the one before it was charged."""
    bench = make(slots=4)
    bench.send(*(request(f"h{i}", "heavy") for i in range(8)))
    bench.step()
    bench.send(*(request(f"l{i}", "light") for i in range(3)))
    steps = bench.serve()
    first = {name: n for n, names in reversed(list(enumerate(steps))) for name in names}
    assert max(first[f"l{i}"] for i in range(3)) < min(first[f"h{i}"] for i in range(5, 8))


@pytest.mark.parametrize("older", [False, True])
def test_counters_are_exact_whatever_happens_to_requests(
    make: Make, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    """Preempted, blocked or aborted: a prompt is charged once, and each token as it is made."""
    if older:
        monkeypatch.setattr(AsyncScheduler, "skipped_waiting", None, raising=False)
    bench = make(slots=5, memory=120)
    draw = random.Random(3)
    everything = [
        request(
            f"r{i}",
            draw.choice("abc"),
            num_prompt_tokens=draw.randint(1, 60),
            max_tokens=draw.randint(1, 30),
        )
        for i in range(60)
    ]
    begun = set[str]()
    for number, each in enumerate(everything):
        if number % 5 == 0:
            each.status = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
        bench.send(each)
        begun.update(bench.step())
        if number % 5 == 2:
            everything[number - 2].status = RequestStatus.WAITING
        if number % 7 == 0:
            bench.scheduler.finish_requests(f"r{number // 2}", RequestStatus.FINISHED_ABORTED)
    begun.update(*bench.serve())
    assert sum(each.num_preemptions for each in everything) > 5
    owed = Counter[str]()
    for each in everything:
        tokens = 2 * len(each.output) + (each.num_prompt_tokens if each.request_id in begun else 0)
        owed[each.sampling_params.extra_args["tenant"]] += tokens
    assert bench.policy.charged == owed
    assert len(bench.scheduler.waiting) == 0


def test_what_is_put_back_costs_what_it_has_cost(make: Make) -> None:
    """Preempted and gone: it stays charged. Taken, but it could not run: nothing is."""
    bench = make(slots=2, memory=24)
    bench.send(request("kept", "a"), request("lost", "b"))
    while not bench.scheduler.requests["lost"].num_preemptions:
        bench.step()
    lost = bench.scheduler.requests["lost"]
    assert bench.policy.charged["b"] == 10 + 2 * len(lost.output)
    bench.scheduler.finish_requests("lost", RequestStatus.FINISHED_ABORTED)
    blocked = request("blocked", "c", status=RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR)
    bench.send(blocked)
    bench.step()
    bench.scheduler.finish_requests("blocked", RequestStatus.FINISHED_ABORTED)
    bench.serve()
    bench.step()  # vLLM makes one more step after an end, which writes all decisions
    assert bench.policy.charged == {"a": 20, "b": 10 + 2 * len(lost.output), "c": 0}
    events = [line["event"] for line in bench.decisions() if line.get("request") == "lost"]
    assert events == ["arrived", "admitted", "preempted", "cancelled"]


def test_a_refused_request_is_answered_once_and_costs_nothing(make: Make) -> None:
    """The engine ends it with the reason, even while nothing else is there to serve."""
    bench = make()
    bench.policy.unwanted = {"b"}
    bench.send(request("b0", "b", client_index=3))
    assert bench.scheduler.has_unfinished_requests()
    assert bench.serve() == [[]]
    ((client, told),) = bench.told["b0"]
    assert (client, told.new_token_ids, str(told.finish_reason.name)) == (3, [], "ABORT")
    assert told.stop_reason == "throttled: too many"
    assert not bench.scheduler.requests
    assert bench.policy.charged == {}
    assert bench.decisions()[1]["event"] == "refused"
    assert bench.decisions()[1]["retry_after_s"] == 3.0


def test_a_refused_request_whose_client_left_is_not_told(make: Make) -> None:
    """Nobody listens any more, and nothing of it stays."""
    bench = make()
    bench.policy.unwanted = {"b"}
    bench.send(request("b0", "b"))
    bench.scheduler.finish_requests("b0", RequestStatus.FINISHED_ABORTED)
    assert not bench.scheduler.has_unfinished_requests()
    assert bench.step() == []
    assert bench.told == {}


def test_only_a_head_without_room_is_thrown_out(make: Make) -> None:
    """The policy is asked when the head does not fit, and may end it; not while there is room."""
    bench = make(slots=1, memory=30)
    bench.send(request("big", num_prompt_tokens=20, max_tokens=9))
    bench.step()
    assert bench.policy.no_room == []
    optional = request("more", "b", labels={"app": "optional"})
    bench.send(optional)
    assert bench.step() == ["big"]  # no slot is free
    assert bench.policy.no_room == ["more"]
    assert [told.stop_reason for _, told in bench.told["more"]] == ["throttled: no room"]
    bench = make(slots=2, memory=30)
    bench.send(request("big", num_prompt_tokens=25, max_tokens=2), request("next", "b"))
    bench.step()  # a slot is free, but no memory
    assert bench.policy.no_room == ["next"]
    bench.serve()
    assert bench.policy.finished == ["big", "next"]


def test_the_end_of_a_request_is_told_as_what_it_was(make: Make) -> None:
    """Answered is finished; failed before it gave anything is paid back, aborted is not."""
    bench = make(slots=3)
    bench.send(request("good"), request("failed"), request("left", max_tokens=50))
    bench.scheduler.schedule()
    bench.scheduler.finish_requests("failed", RequestStatus.FINISHED_ERROR)
    bench.serve_some(5)
    bench.scheduler.finish_requests("left", RequestStatus.FINISHED_ABORTED)
    bench.step()
    assert (bench.policy.finished, bench.policy.refunded) == (["good"], ["failed"])
    assert [line["event"] for line in bench.decisions() if "request" in line] == (
        ["arrived"] * 3 + ["admitted"] * 3 + ["failed", "finished", "cancelled"]
    )


def test_labels_of_any_kind_are_served(make: Make) -> None:
    """A request that says nothing, or nonsense, belongs to the default tenant."""
    bench = make(slots=8)
    nonsense = {"tenant": ["x"], "call": "many", "calls": [], "deadline_s": "inf", "app": {}}
    bench.send(
        FakeRequest("pooling"),
        request("silent", None),
        request("odd", labels=nonsense, tenant=None),
        request(
            "number", labels={"tenant": 7, "call": "2", "calls": 3.0, "app": "shop"}, tenant=None
        ),
        request("huge", labels={"calls": 1e308}, tenant=None),
    )
    bench.serve()
    arrived = [line for line in bench.decisions() if line["event"] == "arrived"]
    assert [line["tenant"] for line in arrived] == [*["default"] * 3, "7", "default"]
    assert max(each.calls for each in bench.policy.begun) == 100_000
    known = next(each for each in bench.policy.begun if each.id == "number")
    assert (known.app, known.call, known.calls, known.deadline_s) == ("shop", 2, 3, None)


def test_made_up_names_fill_no_memory(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number, tenants and applications that clients make up are one."""
    monkeypatch.setattr(fair_queue, "MOST_TENANTS", 3)
    monkeypatch.setattr(fair_queue, "MOST_APPS", 2)
    bench = make(slots=20)
    for number in range(9):
        bench.send(request(f"r{number}", f"t{number}", labels={"app": f"app{number}"}))
    waiting = list(bench.policy.waiting())
    assert {each.tenant for each in waiting} == {"t0", "t1", "t2", "others"}
    assert {each.app for each in waiting} == {"app0", "app1", "others"}
    bench.serve()


def test_a_forced_length_is_known_beforehand(make: Make) -> None:
    """What only its number of tokens can end has an oracle; what may stop earlier has none."""
    bench = make(slots=8)
    for name, ignores, stop in (("forced", True, []), ("stops", True, ["."]), ("free", False, [])):
        each = request(name)
        each.sampling_params.ignore_eos, each.sampling_params.stop = ignores, stop
        bench.send(each)
    bench.serve()
    known = {each.id: each.output_tokens for each in bench.policy.begun}
    assert known == {"forced": 5, "stops": None, "free": None}


def test_decisions_are_private_and_whole_when_the_engine_is_idle(make: Make) -> None:
    """Whoever reads the file after the last answer finds it all, counters included."""
    bench = make()
    bench.send(request("r", "a", num_prompt_tokens=4, max_tokens=3))
    bench.serve()
    lines = bench.decisions()
    assert [line["event"] for line in lines if line["event"] != "state"] == [
        "started", "arrived", "admitted", "finished",
    ]  # fmt: skip
    assert lines[-1]["counters"] == {"a": 10}
    admitted = next(line for line in lines if line["event"] == "admitted")
    assert admitted["counters"] == {"a": 4}
    times = [line["time_ns"] for line in lines]
    assert times == sorted(times)
    bench.scheduler.shutdown()
    assert bench.scheduler.is_shut_down
    bench.scheduler.shutdown()
    assert stat.S_IMODE(bench._decisions.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("tenants", "tell"), [(20, {"admitted", "state"}), (100, {"state"}), (1100, set())]
)
def test_the_counters_of_many_tenants_do_not_fill_the_file(
    make: Make, tenants: int, tell: set[str]
) -> None:
    """Each admission tells them while they are few; of a thousand and more they are left out."""
    bench = make(slots=50, memory=10**9)
    bench.send(*(request(f"r{i}", f"t{i}", max_tokens=1) for i in range(tenants)))
    bench.serve()
    before = len(bench.decisions())
    bench.send(request("one more"))
    bench.serve()
    later = bench.decisions()[before:]
    assert {line["event"] for line in later if "counters" in line} == tell
    assert "finished" in {line["event"] for line in later}


def test_a_full_disk_ends_the_file_and_not_the_service(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests are served as before, and the log says once why nothing is written."""
    bench = make()

    def full(*args: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fairshare.vllm_plugins.decisions.os.write", full)
    bench.send(request("r1"), request("r2", "b"))
    bench.serve()
    assert bench.policy.finished == ["r1", "r2"]
    assert caplog.text.count("No space left") == 1
    bench.scheduler.shutdown()


def test_a_failing_policy_ends_its_order_and_not_the_engine(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that wait, run and come are served in the order of arrival, and the file says so."""
    bench = make(slots=1)
    bench.send(request("a1", "a"), request("a2", "a"), request("b1", "b"))
    bench.step()
    monkeypatch.setattr(bench.policy, "produced", lambda *_: 1 / 0)
    bench.send(request("a3", "a"))
    bench.serve()
    lines = bench.decisions()
    assert [each["request"] for each in lines if each["event"] == "admitted"] == [
        *("a1", "a2", "b1", "a3")
    ]
    assert [each["request"] for each in lines if each["event"] == "finished"] == [
        *("a1", "a2", "b1", "a3")
    ]
    failures = [each for each in lines if each["event"] == "policy_failed"]
    assert len(failures) == 1
    assert "ZeroDivisionError" in failures[0]["error"]


def test_a_session_that_waits_again_is_not_a_new_request(make: Make) -> None:
    """A request that is queued anew while it is known stays one request, charged once."""
    bench = make(slots=1)
    first = request("a1", "a")
    bench.send(first)
    queue = bench.scheduler.waiting
    assert queue.pop_request() is first
    queue.add_request(first)
    queue.add_request(first)
    assert len(queue) == 1
    assert bench.serve()
    assert bench.policy.finished == ["a1"]


@pytest.mark.parametrize("line", [None, "", "no json", "[]", '{"policy": "fairest"}'])
def test_a_scheduler_without_a_policy_says_what_it_needs(
    make: Make, monkeypatch: pytest.MonkeyPatch, line: str | None
) -> None:
    """The engine ends at its start, with an error for people."""
    monkeypatch.undo()
    if line is None:
        monkeypatch.delenv("FAIRSHARE_SCHEDULER", raising=False)
    else:
        monkeypatch.setenv("FAIRSHARE_SCHEDULER", line)
    with pytest.raises(ValueError, match=r"FAIRSHARE_SCHEDULER|asks for no policy|fairest"):
        make.module.FairScheduler()


@pytest.mark.parametrize("version", ["0.25.1", "0.34.0", "1.0", "dev"])
def test_an_unknown_version_is_refused_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """Also a newer one, although it may have all that is needed: nobody has tried it."""
    install(monkeypatch, version)
    with pytest.raises(interface.UnsupportedVersionError, match=r"0\.26 to 0\.33.*" + version):
        interface.installed_scheduler()


@pytest.mark.parametrize("version", ["0.26.0", "0.30.1.dev3+cpu", "0.33.0+cpu"])
def test_known_versions_are_taken(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Whatever a build adds to its number."""
    install(monkeypatch, version)
    assert interface.installed_scheduler() is AsyncScheduler


def test_a_changed_interface_is_refused_with_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number says little about a private interface: its methods are looked at as well."""

    class Changed(AsyncScheduler):
        def finish_requests(self, status: Any, request_ids: Any) -> None:
            """The other way round."""

    install(monkeypatch, AsyncScheduler=Changed)
    with pytest.raises(
        interface.UnsupportedVersionError, match="its finish_requests takes self, status"
    ):
        interface.installed_scheduler()
    install(monkeypatch, AsyncScheduler=object)
    with pytest.raises(interface.UnsupportedVersionError, match="has no _free_request"):
        interface.installed_scheduler()
    install(monkeypatch, AsyncScheduler=None)
    with pytest.raises(interface.UnsupportedVersionError, match="it has no AsyncScheduler"):
        interface.installed_scheduler()
