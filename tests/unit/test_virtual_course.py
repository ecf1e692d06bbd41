"""Many iterations at once: as long as the sum of each."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairshare.virtual.course import Lane
from fairshare.virtual.models import virtual_model
from fairshare.virtual.physics import PUBLISHED, Batch, Costs


@dataclass(frozen=True)
class A100:
    """An A100-40's peaks."""

    peak_flops: float = 312e12
    bandwidth_bytes_s: float = 1555e9


LANE = Lane(Costs.of(A100(), virtual_model("qwen3-4b")), PUBLISHED)


def decode(sequences: int, context: int) -> Batch:
    """A batch of sequences that decode."""
    return Batch(0, sequences, sequences, context)


@given(st.integers(1, 128), st.integers(1, 4000), st.integers(1, 1000))
def test_a_course_takes_as_long_as_its_iterations_one_by_one(
    sequences: int, tokens: int, steps: int
) -> None:
    """The parabola stands for up to 1000 iterations of up to 128 sequences within 1e-4."""
    course = LANE.course(decode(sequences, sequences * tokens), steps)
    one_by_one = sum(
        LANE.course(decode(sequences, sequences * (tokens + i)), 1).after(1) for i in range(steps)
    )
    assert course.after(steps) == pytest.approx(one_by_one, rel=1e-4)
    assert course.ends(steps)[-1] == pytest.approx(course.after(steps))


@given(st.integers(1, 64), st.integers(1, 300), st.floats(0, 1))
def test_the_boundary_is_the_first_end_of_an_iteration_after_a_moment(
    sequences: int, steps: int, fraction: float
) -> None:
    """No iteration is cut through, and none is waited for in vain."""
    course = LANE.course(decode(sequences, sequences * 500), steps)
    elapsed_s = fraction * course.after(steps)
    boundary = course.boundary(elapsed_s)
    assert 1 <= boundary <= steps
    assert course.after(boundary) >= elapsed_s * (1 - 1e-12)
    assert boundary == 1 or course.after(boundary - 1) < elapsed_s
