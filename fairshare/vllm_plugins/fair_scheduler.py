"""vLLM's own scheduler, with its waiting requests in the order of one of our policies.

The server is started with ``--scheduler-cls`` and this class; the environment says which policy
(``FAIRSHARE_SCHEDULER``, a JSON object with ``policy``, ``options``, and the tenants' terms in
``tenants`` and ``default``) and which file gets its decisions
(``FAIRSHARE_SCHEDULER_DECISIONS``). vLLM decides as ever who fits, what is batched and what is
preempted; who is next is asked of the policy, and each token is charged when it is made.
"""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

from fairshare.scheduling.guarded import Guarded
from fairshare.scheduling.policy import SchedulingPolicy
from fairshare.scheduling.told import policy_told
from fairshare.vllm_plugins.decisions import Decisions
from fairshare.vllm_plugins.fair_queue import FairQueue, HoldersQueue
from fairshare.vllm_plugins.interface import installed_scheduler

if TYPE_CHECKING:
    from fairshare.vllm_plugins.interface import AsyncScheduler
else:
    AsyncScheduler = installed_scheduler()

SCHEDULER_VARIABLE = "FAIRSHARE_SCHEDULER"
DECISIONS_VARIABLE = "FAIRSHARE_SCHEDULER_DECISIONS"

_log = logging.getLogger("vllm.fairshare")


class FairScheduler(AsyncScheduler):
    """The scheduler of ``--scheduler-cls``."""

    waiting: FairQueue

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build vLLM's scheduler, and put our queue in place of its own.

        Raises:
            ValueError: the environment names no policy, or not one that there is.
            OSError: decisions cannot be written where they should be.
        """
        super().__init__(*args, **kwargs)
        policy = Guarded(asked_policy(), self._policy_failed)
        self._decisions = Decisions(os.environ.get(DECISIONS_VARIABLE), policy.counters)
        asked = json.loads(os.environ[SCHEDULER_VARIABLE])
        self._decisions.started(
            policy=asked["policy"],
            policy_options=asked.get("options") or {},
            weights={
                name: each.get("weight", 1) for name, each in asked.get("tenants", {}).items()
            },
        )
        self.waiting = FairQueue(policy, self._decisions, asked.get("tenants", {}))
        if hasattr(self, "skipped_waiting"):  # vLLM until 0.30
            self.skipped_waiting = HoldersQueue(self.waiting)
        _log.info("fairshare: requests are served by policy %s", policy.name)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """One step of vLLM's."""
        output = super().schedule(*args, **kwargs)
        most = getattr(self, "max_num_active_reqs", self.max_num_running_reqs)  # since 0.31
        self.waiting.stepped(full=len(self.running) >= most)
        return output

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> dict[int, Any]:
        """What a step gave, and to whom the policy gives nothing."""
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        for request, refusal in self.waiting.refused():
            self._tell_refused(outputs, request, refusal.reason)
        self._decisions.flush(idle=not self.has_unfinished_requests())
        return outputs

    def shutdown(self) -> None:
        """The engine ends: the last decisions are written."""
        self._decisions.close()
        super().shutdown()

    def _update_request_with_output(
        self, request: Any, new_token_ids: list[int], *args: Any, **kwargs: Any
    ) -> tuple[list[int], bool]:
        """Charge what was made, without what was speculated in vain."""
        made, stopped = super()._update_request_with_output(request, new_token_ids, *args, **kwargs)
        self.waiting.produced(request, len(made))
        return made, stopped

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self.waiting.ended(request)
        return super()._free_request(request, *args, **kwargs)

    def _policy_failed(self, error: str) -> None:
        """The engine goes on, as it would by itself."""
        _log.error("fairshare: the policy failed; from now on in the order of arrival: %s", error)
        self._decisions.failed(error)

    def _tell_refused(self, outputs: dict[int, Any], request: Any, reason: str) -> None:
        """End a request as vLLM does when it shuts down, with the reason beside it."""
        from vllm.v1.engine import (  # noqa: PLC0415
            EngineCoreOutput,
            EngineCoreOutputs,
            FinishReason,
        )
        from vllm.v1.request import RequestStatus  # noqa: PLC0415

        self.finish_requests(request.request_id, RequestStatus.FINISHED_ABORTED)
        told = EngineCoreOutput(
            request_id=request.request_id,
            new_token_ids=[],
            finish_reason=FinishReason.ABORT,
            stop_reason=f"throttled: {reason}",
            trace_headers=request.trace_headers,
        )
        mine = outputs.setdefault(request.client_index, EngineCoreOutputs(outputs=[]))
        mine.outputs.append(told)


def asked_policy() -> SchedulingPolicy:
    """The policy that the environment asks for.

    Raises:
        ValueError: it asks for none, or for one that there is not.
    """
    line = os.environ.get(SCHEDULER_VARIABLE)
    if not line:
        raise ValueError(
            f"fairshare's scheduler does not know what to follow: set {SCHEDULER_VARIABLE}, "
            'for example to {"policy": "vtc"}'
        )
    return policy_told(line)
