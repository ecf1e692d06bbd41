"""What the fake server does, well or badly."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """One way of behaving. All but ``ok`` and ``half_lines`` are failures seen in life."""

    OK = "ok"
    HALF_LINES = "half_lines"  # correct, but each event travels in two pieces
    DIE_AT_START = "die_at_start"  # prints a traceback and exits 1 (as a program only)
    NEVER_READY = "never_ready"  # /health answers 503 for ever
    HANG_HEALTH = "hang_health"  # /health never answers
    LEAK_CHILD = "leak_child"  # starts a child that outlives it (as a program only)
    DIE_AFTER_REQUESTS = "die_after_requests"  # dies in the middle of the answer after ``after``
    DISCONNECT = "disconnect"  # breaks the connection in the middle of an answer
    GARBAGE = "garbage"  # a page instead of an answer
    GARBAGE_EVENTS = "garbage_events"  # an event stream whose data is not JSON
    HTTP_400 = "http_400"
    HTTP_500 = "http_500"
    ERROR_THEN_DONE = "error_then_done"  # an error event, then a regular [DONE], as vLLM does
    ABORT = "abort"  # finish reason "abort" without a token, as a draining vLLM does
    NO_FINISH = "no_finish"  # ends without a finish reason
    NO_USAGE = "no_usage"  # ends well but never counts its tokens
    STALL = "stall"  # stops in the middle of a stream, connection open
    HUGE_LINE = "huge_line"  # a line without end


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the fake server answers. Tokens are due at absolute times: TTFT + k x ITL after arrival.

    ``after`` requests are answered well before the failure of ``kind`` begins. ``empty_chunks``
    chunks without a token come at once, before the first token. With ``silent_text`` tokens have
    empty text, as byte-level tokenizers give. ``max_running`` requests are served at a time, the
    rest wait. ``ready_after_s`` is how long /health says 503 at first.
    """

    kind: Kind = Kind.OK
    after: int = 0
    ttft_s: float = 0.0
    itl_s: float = 0.0
    tokens_per_chunk: int = 1
    empty_chunks: int = 0
    cached_tokens: int = 0
    silent_text: bool = False
    max_running: int | None = None
    ready_after_s: float = 0.0
