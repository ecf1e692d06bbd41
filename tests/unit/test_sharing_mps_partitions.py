"""Reading and dividing static SM partitions, without a daemon."""

from __future__ import annotations

import pytest

from fairshare.errors import PartitionError
from fairshare.sharing.mps_partitions import Listed, apportion, parse_added, parse_partitions

# From NVIDIA's documentation of the commands, whose column widths differ between versions.
LISTED = """\
GPU           Partition                             free   used   free  used  clients
                                                    chunk  chunk  SM    SM
GPU-74d43ed3  -                                     3      7      24    56    -
GPU-74d43ed3  Dx4AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA  -      7      -     56    Yes
"""


def test_the_list_is_read_whatever_its_columns_width() -> None:
    """The GPU's own row says what is free; a partition's says its chunks and SMs."""
    identifier = "Dx4AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    expected = [Listed("-", 3, 7, 56), Listed(identifier, None, 7, 56)]
    assert parse_partitions(LISTED) == expected
    assert parse_partitions("\n".join(" ".join(x.split()) for x in LISTED.splitlines())) == expected
    assert parse_partitions('Unknown command "lspart"\n') == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("GPU-74d43ed3-cdf7-e667-3644-bf5b4f46ed65/Dx4AAA\n", "Dx4AAA"),
        ("Partition Dx4AAA created\n", "Dx4AAA"),
        ("Partition GPU-74d43ed3-cdf7-e667-3644-bf5b4f46ed65/Dx4AAA created\n", "Dx4AAA"),
        ("Partition creation failed: 3 chunks are free\n", None),
        ('Unknown command "sm_partition"\n', None),
    ],
)
def test_the_answer_names_the_new_partition(said: str, expected: str | None) -> None:
    """Builds differ in how they say it; a failure names none."""
    assert parse_added(said) == expected


@pytest.mark.parametrize(
    ("shares", "chunks", "expected"),
    [
        ([0.5, 0.5], 16, [8, 8]),
        ([0.5, 0.5], 13, [7, 6]),
        ([0.75, 0.25], 13, [10, 3]),
        ([0.98, 0.01, 0.01], 10, [8, 1, 1]),
        ([1 / 3, 1 / 3, 1 / 3], 16, [6, 5, 5]),
    ],
)
def test_chunks_follow_the_shares(shares: list[float], chunks: int, expected: list[int]) -> None:
    """All chunks are given, by largest remainder, and everybody has one at least."""
    assert apportion(shares, chunks) == expected


def test_too_few_chunks_are_refused() -> None:
    """Two tenants cannot share one chunk: it would be nobody's own."""
    with pytest.raises(PartitionError, match="2 tenants cannot have SMs of their own"):
        apportion([0.5, 0.5], 1)
