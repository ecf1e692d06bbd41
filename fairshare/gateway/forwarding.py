"""Which headers of a client the server sees, and what others say to the scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from fairshare.gateway.identity import KEY_HEADER, TENANT_HEADERS, checked_name
from fairshare.gateway.settings import GatewaySettings

OWN_PREFIX = "x-fairshare-"
PRIORITY_HEADER = "x-vllm-priority"
_CREDENTIALS = {"authorization", "x-api-key"}
# Of this connection alone, or made anew. The answer must come as it is: bytes of it are read.
_NEVER = {
    *("connection", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer"),
    *("transfer-encoding", "upgrade", "host", "content-length", "content-encoding", "expect"),
    *("accept-encoding", KEY_HEADER, *TENANT_HEADERS),
}
MOST_CALLS = 100_000
MOST_DEADLINE_MS = 86_400_000


class BadHeaderError(ValueError):
    """A header of ours with a value that it cannot have."""


class Forwarding:
    """Makes the headers of a request to the server out of a client's."""

    def __init__(
        self, settings: GatewaySettings, upstream_key: str | None, *, guarded: bool
    ) -> None:
        self._dropped = _NEVER | (_CREDENTIALS if guarded or upstream_key else set())
        if settings.send_priority:
            self._dropped |= {PRIORITY_HEADER}
        self._added = [("Accept-Encoding", "identity")]
        if upstream_key:
            self._added.append(("Authorization", f"Bearer {upstream_key}"))

    def headers(self, request: web.BaseRequest) -> list[tuple[str, str]]:
        """What the server is told."""
        kept = [
            (name, value)
            for name, value in request.headers.items()
            if (low := name.lower()) not in self._dropped and not low.startswith(OWN_PREFIX)
        ]
        return kept + self._added


@dataclass(frozen=True, slots=True)
class Hints:
    """What a caller says of its request beyond whose it is."""

    app: str = ""
    interaction: str | None = None
    call: int = 1
    calls: int = 1
    system_tokens: int = 0
    deadline_s: float | None = None
    """Seconds from its arrival."""


NO_HINTS = Hints()


def hints(headers: Mapping[str, str], body: Mapping[str, Any]) -> Hints:
    """The hints in a request's headers; if there are none, in ``vllm_xargs`` of its body.

    The latter are those that a scheduler inside vLLM reads (docs/schedulers.md).

    Raises:
        BadHeaderError: one has a value that it cannot have.
        BadNameError: the application or the interaction has no name that can be one.
    """
    app, interaction = headers.get("x-fairshare-app"), headers.get("x-fairshare-interaction")
    deadline_ms = headers.get("x-fairshare-deadline-ms") or headers.get("x-slo-ttft-ms")
    if app is interaction is deadline_ms is None and "x-fairshare-system-tokens" not in headers:
        labels = _labels(body)
        return hints(labels, {}) if labels else NO_HINTS
    call = _number(headers, "x-fairshare-call", 1, 1, MOST_CALLS)
    calls = _number(headers, "x-fairshare-calls", call, 1, MOST_CALLS)
    if call > calls:
        raise BadHeaderError("x-fairshare-call is larger than x-fairshare-calls")
    return Hints(
        app=checked_name(app) if app else "",
        interaction=checked_name(interaction) if interaction else None,
        call=call,
        calls=calls,
        system_tokens=_number(headers, "x-fairshare-system-tokens", 0, 0, 10_000_000),
        deadline_s=None if deadline_ms is None else _milliseconds(deadline_ms) / 1e3,
    )


def _labels(body: Mapping[str, Any]) -> dict[str, str]:
    """The labels in a body, under the names of the headers."""
    told = body.get("vllm_xargs")
    if not isinstance(told, dict):
        return {}
    names = ("app", "interaction", "call", "calls", "system_tokens")
    return {
        f"x-fairshare-{name.replace('_', '-')}": str(told[name]) for name in names if name in told
    }


def _number(headers: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = headers.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise BadHeaderError(f"{name} must be a whole number from {least} to {most}")
    return int(text)


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MOST_DEADLINE_MS:
        raise BadHeaderError(
            f"a deadline must be a number of milliseconds up to {MOST_DEADLINE_MS}"
        )
    return value
