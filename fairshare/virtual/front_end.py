"""How long a request is in the front end: HTTP, tokenizer, and the way to the engine."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence

# By so much of the mean one request differs from another, evenly spread. Without it requests of
# equal length in a closed loop move in step, and what they meet is decided by the last millisecond.
SCATTER = 0.5


def passing(prompt: Sequence[int]) -> float:
    """The time of a request with this prompt in the front end, over the mean.

    The prompt decides, so that it is the same in every mode, on servers and in virtual time.
    """
    if not prompt:
        return 1.0
    chance = zlib.crc32(array("q", prompt).tobytes()) / 2**32
    return 1 + SCATTER * (2 * chance - 1)
