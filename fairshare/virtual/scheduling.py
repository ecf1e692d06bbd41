"""Who is next in the simulated engine, told as vLLM's own scheduler is told it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from fairshare.scheduling.bookkeeping import Bookkeeping
from fairshare.scheduling.fcfs import Fcfs
from fairshare.scheduling.policy import Refusal, Request, SchedulingPolicy
from fairshare.scheduling.queues import Sorted
from fairshare.scheduling.told import policy_told
from fairshare.virtual.engine import Sequence
from fairshare.vllm_plugins.decisions import Decisions
from fairshare.vllm_plugins.interface import RequestLike
from fairshare.vllm_plugins.labels import described

POLICY_VARIABLE = "FAIRSHARE_SCHEDULER"
DECISIONS_VARIABLE = "FAIRSHARE_SCHEDULER_DECISIONS"


def policy_of(scheduling_policy: str, environ: Mapping[str, str]) -> SchedulingPolicy:
    """The policy that the environment asks for, else vLLM's own of that name.

    Raises:
        ValueError: the environment asks for one that there is not.
        OSError: decisions cannot be written where it says.
    """
    told = environ.get(POLICY_VARIABLE)
    if told is not None:
        return Logged(policy_told(told), environ.get(DECISIONS_VARIABLE))
    return Priority() if scheduling_policy == "priority" else Fcfs()


def sequence_of(
    id_: str, prompt_tokens: int, max_tokens: int, body: Mapping[str, Any], now_s: float
) -> Sequence:
    """The request in a body that was found good, with what it says of itself to a scheduler."""
    sampling = SimpleNamespace(
        extra_args=body.get("vllm_xargs"),
        ignore_eos=bool(body.get("ignore_eos")),
        stop=None,
        stop_token_ids=body.get("stop_token_ids"),
    )
    said = described(_Asked(id_, prompt_tokens, max_tokens, sampling), now_s)
    values = {name: getattr(said, name) for name in Request.__slots__}
    priority = body.get("priority")
    return Sequence(**values, priority=priority if isinstance(priority, int) else 0)


class Priority(Bookkeeping[Sorted]):
    """vLLM's ``--scheduling-policy priority``: the smallest number first, then the oldest."""

    name = "priority"
    counts_tokens = False

    def __init__(self) -> None:
        super().__init__(Sorted(_priority))

    def head(self, now_s: float) -> Request | None:
        """The one with the smallest number."""
        return self._waiting.first()


class Logged(SchedulingPolicy):
    """A policy whose decisions are written down, as those of vLLM's plugin are."""

    def __init__(self, policy: SchedulingPolicy, path: str | None) -> None:
        """``path``: the file; None: nothing is written.

        Raises:
            OSError: it cannot be written.
        """
        self.name = policy.name
        self.counts_tokens = policy.counts_tokens
        self._policy = policy
        self._decisions = Decisions(path, policy.counters)
        self._decisions.started(policy=policy.name)
        self._running = 0

    def arrive(self, request: Request, now_s: float) -> Refusal | None:
        """As the policy's own."""
        refusal = self._policy.arrive(request, now_s)
        if refusal is not None:
            self._tell("refused", request, reason=refusal.reason)
        else:
            self._tell("arrived", request)
        return refusal

    def head(self, now_s: float) -> Request | None:
        """As the policy's own."""
        return self._policy.head(now_s)

    def admit(self, request: Request, now_s: float) -> None:
        """As the policy's own."""
        self._policy.admit(request, now_s)
        self._running += 1
        self._decisions.keep(self._decisions.admission(request, len(self._policy)))

    def does_not_fit(self, now_s: float) -> list[tuple[Request, Refusal]]:
        """As the policy's own."""
        dropped = self._policy.does_not_fit(now_s)
        for request, refusal in dropped:
            self._tell("refused", request, reason=refusal.reason)
        return dropped

    def put_back(self, request: Request, now_s: float, *, preempted: bool) -> None:
        """As the policy's own."""
        self._policy.put_back(request, now_s, preempted=preempted)
        self._running -= 1
        self._tell("preempted", request)

    def produced(self, request: Request, tokens: int, now_s: float) -> None:
        """As the policy's own."""
        self._policy.produced(request, tokens, now_s)

    def finish(self, request: Request, now_s: float) -> None:
        """As the policy's own."""
        self._policy.finish(request, now_s)
        self._running -= 1
        self._tell("finished", request)

    def cancel(self, request: Request, now_s: float, *, refund: bool = False) -> None:
        """As the policy's own."""
        before = len(self._policy)
        self._policy.cancel(request, now_s, refund=refund)
        self._running -= len(self._policy) == before  # it ran
        self._tell("cancelled", request)

    def rank(self, request: Request) -> int:
        """As the policy's own."""
        return self._policy.rank(request)

    def counters(self) -> dict[str, float]:
        """As the policy's own."""
        return self._policy.counters()

    def waiting(self) -> Iterator[Request]:
        """As the policy's own."""
        return self._policy.waiting()

    def __len__(self) -> int:
        return len(self._policy)

    def _tell(self, event: str, request: Request, **more: Any) -> None:
        self._decisions.tell(event, request, len(self._policy), **more)
        self._decisions.flush(idle=self._running <= 0 and not self._policy)


class _Asked(RequestLike):
    """A request as vLLM's scheduler sees one, as far as its labels are read from it."""

    def __init__(self, id_: str, prompt_tokens: int, max_tokens: int, sampling: Any) -> None:
        self.request_id = id_
        self.num_prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.sampling_params = sampling


def _priority(request: Request) -> float:
    assert isinstance(request, Sequence)  # noqa: S101  (the engine has no others)
    return request.priority
