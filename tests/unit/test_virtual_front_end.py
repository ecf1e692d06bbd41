"""Time in the front end: another for each prompt, and always the same for one."""

from __future__ import annotations

import random
from statistics import mean

from fairshare.virtual.front_end import SCATTER, passing


def test_requests_scatter_evenly_around_the_mean() -> None:
    """Between a half and one and a half of the mean, by the prompt alone."""
    rng = random.Random(1)
    prompts = [[rng.randrange(50_000) for _ in range(20)] for _ in range(2000)]
    drawn = [passing(prompt) for prompt in prompts]
    assert min(drawn) >= 1 - SCATTER
    assert max(drawn) <= 1 + SCATTER
    assert abs(mean(drawn) - 1) < 0.02
    assert abs(mean(abs(each - 1) for each in drawn) - SCATTER / 2) < 0.02
    assert drawn == [passing(tuple(prompt)) for prompt in prompts]
    assert passing([]) == 1.0
