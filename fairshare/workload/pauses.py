"""How long a closed-loop client waits after a failure."""

from __future__ import annotations

# A server that refuses at once would otherwise be asked as fast as the client can: a failure costs
# its client a pause that doubles with each further one. The pause is not counted as lateness.
FAILURE_PAUSE_S = 0.1
MAX_FAILURE_PAUSE_S = 1.0
# A server that says when it wants to be asked again is heeded, but not for hours.
MAX_RETRY_AFTER_S = 10.0


def failure_pause_s(failures: int, retry_after_s: float | None) -> float:
    """The pause after so many failures in a row; ``retry_after_s`` is what the server asked for."""
    if not failures:
        return 0.0
    own_s = min(FAILURE_PAUSE_S * 2.0 ** min(failures - 1, 10), MAX_FAILURE_PAUSE_S)
    return max(own_s, min(retry_after_s or 0.0, MAX_RETRY_AFTER_S))
