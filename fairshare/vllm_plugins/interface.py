"""What the fair scheduler relies on of vLLM's own, and whether the installed one has it.

vLLM's scheduler is no public interface: it changes between versions, and says so in its log. So a
version that nobody has tried is refused with the versions that were, and so is one whose methods
are not those that are written down here.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

OLDEST = (0, 26)
NEWEST = (0, 33)


class UnsupportedVersionError(RuntimeError):
    """The fair scheduler does not know this vLLM."""


class RequestLike:
    """What is read of vLLM's requests, while they wait and while they run."""

    request_id: str
    client_index: int
    num_prompt_tokens: int
    num_computed_tokens: int
    num_preemptions: int
    max_tokens: int
    status: Any
    sampling_params: Any
    trace_headers: Any


class AsyncScheduler:
    """The methods of vLLM's that are overridden or called, with the parameters that are used."""

    waiting: Any
    running: list[Any]
    max_num_running_reqs: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Build the scheduler, with its queues."""

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """One step: who runs in it."""
        raise NotImplementedError

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> dict[int, Any]:
        """What the step gave, by client."""
        raise NotImplementedError

    def finish_requests(self, request_ids: Any, finished_status: Any) -> Any:
        """End requests from outside."""
        raise NotImplementedError

    def has_unfinished_requests(self) -> bool:
        """Whether anything waits or runs."""
        raise NotImplementedError

    def shutdown(self) -> None:
        """The engine ends."""

    def _update_request_with_output(
        self, request: Any, new_token_ids: list[int], *args: Any, **kwargs: Any
    ) -> tuple[list[int], bool]:
        raise NotImplementedError

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


def installed_scheduler() -> type[Any]:
    """The ``AsyncScheduler`` of the vLLM that is installed.

    Raises:
        UnsupportedVersionError: it is older or newer than the known ones, or differs from them.
    """
    import vllm  # noqa: PLC0415

    check_version(str(vllm.__version__))
    try:
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler as installed  # noqa: PLC0415, N813
    except ImportError as error:
        raise _unsupported(str(vllm.__version__), f"it has no AsyncScheduler ({error})") from None
    if missing := differences(installed):
        raise _unsupported(str(vllm.__version__), "; ".join(missing))
    found: type[Any] = installed
    return found


def check_version(version: str) -> None:
    """Refuse a version that is not known.

    Raises:
        UnsupportedVersionError: with the versions that are.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or not OLDEST <= (int(numbers[1]), int(numbers[2])) <= NEWEST:
        raise _unsupported(version, "nobody has tried it")


def differences(installed: type[Any]) -> list[str]:
    """What of :class:`AsyncScheduler` the installed one lacks or takes in another way."""
    found = []
    for name, method in inspect.getmembers(AsyncScheduler, inspect.isfunction):
        theirs = getattr(installed, name, None)
        if theirs is None:
            found.append(f"its scheduler has no {name}")
            continue
        if takes_all(theirs):
            continue
        needed = _named(method)
        if _named(theirs)[: len(needed)] != needed:
            found.append(f"its {name} takes {', '.join(_named(theirs))}, not {', '.join(needed)}")
    return found


def takes_all(method: Any) -> bool:
    """Whether it passes on whatever it is given."""
    kinds = {each.kind for each in inspect.signature(method).parameters.values()}
    return inspect.Parameter.VAR_POSITIONAL in kinds


def _named(method: Any) -> list[str]:
    flexible = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(method).parameters.values()
    return [each.name for each in parameters if each.kind not in flexible]


def _unsupported(version: str, why: str) -> UnsupportedVersionError:
    known = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    return UnsupportedVersionError(
        f"fairshare's scheduler works inside vLLM {known}, and this is vLLM {version}: {why}. "
        "Use a version in between, or schedule before the server (--scheduling gateway)."
    )
