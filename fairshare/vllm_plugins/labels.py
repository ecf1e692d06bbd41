"""Whose a request is and what it is part of: what clients write into ``vllm_xargs``.

It is the one thing that reaches vLLM's scheduler as the client wrote it: headers do not. Whatever
is written there, a request is served: what cannot be understood counts as not written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fairshare.scheduling.policy import Request
from fairshare.vllm_plugins.interface import RequestLike

DEFAULT_TENANT = "default"
_LONGEST_NAME = 200
MOST_CALLS = 100_000
"""Of an interaction; a number beyond it is taken for it."""


def described(request: RequestLike, now_s: float) -> Request:
    """The request of vLLM's as a policy knows it; it arrives now."""
    told = _labels(request.sampling_params)
    call = _calls(told.get("call"), 1)
    deadline_s = _number(told.get("deadline_s"))
    return Request(
        id=request.request_id,
        tenant=_name(told.get("tenant")) or DEFAULT_TENANT,
        prompt_tokens=request.num_prompt_tokens,
        max_output_tokens=request.max_tokens,
        arrival_s=now_s,
        app=_name(told.get("app")),
        interaction=_name(told.get("interaction")) or None,
        call=call,
        calls=_calls(told.get("calls"), call),
        system_tokens=min(
            max(0, _whole(told.get("system_tokens")) or 0), request.num_prompt_tokens
        ),
        deadline_s=None if deadline_s is None else now_s + deadline_s,
        output_tokens=_forced_length(request),
    )


def _labels(sampling: Any) -> Mapping[str, Any]:
    told = getattr(sampling, "extra_args", None)  # pooling requests have no sampling parameters
    return told if isinstance(told, Mapping) else {}


def _name(value: object) -> str:
    return str(value)[:_LONGEST_NAME] if isinstance(value, str | int | float) else ""


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _whole(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _calls(value: object, least: int) -> int:
    return min(max(least, _whole(value) or least), MOST_CALLS)


def _forced_length(request: RequestLike) -> int | None:
    """How many tokens it will give, where nothing but their number can end it."""
    sampling = request.sampling_params
    if not getattr(sampling, "ignore_eos", False) or sampling.stop or sampling.stop_token_ids:
        return None
    return request.max_tokens
