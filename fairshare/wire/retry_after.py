"""The Retry-After header: when a server that refuses wants to be asked again."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime

_SECONDS = re.compile(r"\d{1,9}", re.ASCII)


def retry_after_s(value: str) -> float | None:
    """Seconds from now, by number or by date (RFC 9110, 10.2.3); None where it says neither.

    A date that has passed is 0.
    """
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
