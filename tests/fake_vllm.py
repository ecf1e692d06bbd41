"""As much of vLLM as the fair scheduler needs: a scheduler of two dozen lines, with its interface.

Like vLLM's it looks at the head and takes it if it fits, skips what is blocked and puts it back at
the end of the step, and preempts the newest when memory runs out. Memory is counted in tokens.
"""

from __future__ import annotations

import enum
import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class RequestStatus(enum.IntEnum):
    """As in ``vllm.v1.request``."""

    WAITING = enum.auto()
    WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR = enum.auto()
    WAITING_FOR_REMOTE_KVS = enum.auto()
    RUNNING = enum.auto()
    PREEMPTED = enum.auto()
    FINISHED_STOPPED = enum.auto()
    FINISHED_LENGTH_CAPPED = enum.auto()
    FINISHED_ABORTED = enum.auto()
    FINISHED_ERROR = enum.auto()


class FinishReason(enum.IntEnum):
    """As in ``vllm.v1.engine``."""

    LENGTH = 1
    ABORT = 2


@dataclass
class EngineCoreOutput:
    """As in ``vllm.v1.engine``."""

    request_id: str
    new_token_ids: list[int]
    finish_reason: FinishReason | None = None
    stop_reason: str | None = None
    trace_headers: Any = None


@dataclass
class EngineCoreOutputs:
    """As in ``vllm.v1.engine``."""

    outputs: list[EngineCoreOutput]


@dataclass(eq=False)
class FakeRequest:
    """As in ``vllm.v1.request``."""

    request_id: str
    num_prompt_tokens: int = 10
    max_tokens: int = 5
    sampling_params: Any = None
    client_index: int = 0
    num_computed_tokens: int = 0
    num_preemptions: int = 0
    status: RequestStatus = RequestStatus.WAITING
    trace_headers: Any = None
    output: list[int] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """What it needs of the memory."""
        return self.num_prompt_tokens + len(self.output)


def request(name: str, tenant: str | None = "a", **values: Any) -> FakeRequest:
    """A request of that tenant (None: it says nothing)."""
    labels = values.pop("labels", {}) | ({} if tenant is None else {"tenant": tenant})
    sampling = SimpleNamespace(
        extra_args=labels or None, ignore_eos=False, stop=[], stop_token_ids=[]
    )
    return FakeRequest(name, **{"sampling_params": sampling} | values)


class AsyncScheduler:
    """As in ``vllm.v1.core.sched.async_scheduler``: one token for each running one in a step."""

    def __init__(self, slots: int = 2, memory: int = 1000) -> None:
        self.waiting: Any = deque()
        self.running: list[FakeRequest] = []
        self.max_num_running_reqs = slots
        self.requests: dict[str, FakeRequest] = {}
        self._memory = memory
        self.is_shut_down = False

    def add_request(self, request: FakeRequest) -> None:
        """A request has come."""
        self.requests[request.request_id] = request
        blocked = request.status is RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
        (self._skipped() if blocked else self.waiting).add_request(request)

    def schedule(self, throttle_prefills: bool = False) -> list[FakeRequest]:
        """Who runs in this step."""
        preempted = False
        while self._used() > self._memory:
            self._preempt(self.running.pop())
            preempted = True
        skipped: deque[FakeRequest] = deque()
        while not preempted and self.waiting and len(self.running) < self.max_num_running_reqs:
            head = self.waiting.peek_request()
            if head.status is RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR:
                skipped.appendleft(self.waiting.pop_request())
                continue
            if self._used() + head.num_tokens > self._memory:
                break
            assert self.waiting.pop_request() is head
            head.status = RequestStatus.RUNNING
            self.running.append(head)
        if skipped:
            self._skipped().prepend_requests(skipped)
        return list(self.running)

    def update_from_output(
        self, scheduler_output: list[FakeRequest], model_runner_output: object
    ) -> dict[int, EngineCoreOutputs]:
        """What each of them got."""
        outputs: dict[int, EngineCoreOutputs] = {}
        for each in scheduler_output:
            if each.status > RequestStatus.PREEMPTED:
                continue
            tokens, stopped = self._update_request_with_output(each, [7])
            reason = FinishReason.LENGTH if stopped else None
            told = EngineCoreOutput(each.request_id, tokens, reason)
            outputs.setdefault(each.client_index, EngineCoreOutputs([])).outputs.append(told)
            if stopped:
                each.status = RequestStatus.FINISHED_LENGTH_CAPPED
                self.running.remove(each)
                self._free_request(each)
        return outputs

    def finish_requests(
        self, request_ids: str | Iterable[str], finished_status: RequestStatus
    ) -> None:
        """End requests from outside."""
        for name in [request_ids] if isinstance(request_ids, str) else request_ids:
            each = self.requests.get(name)
            if each is None:
                continue
            if each.status is RequestStatus.RUNNING:
                self.running.remove(each)
            else:
                self.waiting.remove_requests([each])
            each.status = finished_status
            self._free_request(each)

    def has_unfinished_requests(self) -> bool:
        """Whether anything waits or runs."""
        return len(self.waiting) + len(self.running) > 0

    def shutdown(self) -> None:
        """The engine ends."""
        self.is_shut_down = True

    def _skipped(self) -> Any:
        """Until 0.30 vLLM has a second queue, for what it skips."""
        return getattr(self, "skipped_waiting", self.waiting)

    def _used(self) -> int:
        return sum(each.num_tokens for each in self.running)

    def _preempt(self, victim: FakeRequest) -> None:
        victim.status = RequestStatus.PREEMPTED
        victim.num_preemptions += 1
        self.waiting.prepend_request(victim)

    def _update_request_with_output(
        self, request: FakeRequest, new_token_ids: list[int], is_stale: bool = False
    ) -> tuple[list[int], bool]:
        request.output += new_token_ids
        return new_token_ids, len(request.output) >= request.max_tokens

    def _free_request(self, request: FakeRequest, delay_free_blocks: bool = False) -> None:
        del self.requests[request.request_id]


def install(patch: pytest.MonkeyPatch, version: str = "0.32.0", **changes: Any) -> None:
    """Let ``import vllm`` find this, with some names changed (None: taken away)."""
    parts: dict[str, dict[str, Any]] = {
        "vllm": {"__version__": version},
        "vllm.v1": {},
        "vllm.v1.core": {},
        "vllm.v1.core.sched": {},
        "vllm.v1.core.sched.async_scheduler": {"AsyncScheduler": AsyncScheduler},
        "vllm.v1.engine": {
            "EngineCoreOutput": EngineCoreOutput,
            "EngineCoreOutputs": EngineCoreOutputs,
            "FinishReason": FinishReason,
        },
        "vllm.v1.request": {"RequestStatus": RequestStatus},
    }
    for name, holds in parts.items():
        module = ModuleType(name)
        known = {key: changes.get(key, value) for key, value in holds.items()}
        vars(module).update({key: value for key, value in known.items() if value is not None})
        patch.setitem(sys.modules, name, module)
