"""CPU sets: kept exactly or refused."""

from __future__ import annotations

import os

import pytest

from fairshare.errors import PreflightError
from fairshare.processes.cpus import check_cpu_set, check_granted, online_cpus, parse_cpu_list


@pytest.mark.parametrize(
    ("text", "expected"), [("0-3,8\n", {0, 1, 2, 3, 8}), ("5", {5}), ("\n", set())]
)
def test_the_kernels_list_format_is_read(text: str, expected: set[int]) -> None:
    """Ranges and single numbers of the kernel's list become the cores they stand for."""
    assert parse_cpu_list(text) == expected


def test_existing_cores_pass_and_absent_ones_are_named() -> None:
    """A core that does not exist is named in the error, with those that do in the hint."""
    online = online_cpus()
    check_cpu_set("a", sorted(online))
    absent = max(online) + 7
    with pytest.raises(PreflightError, match=f"core {absent} does not exist") as caught:
        check_cpu_set("a", [min(online), absent])
    assert str(max(online)) in str(caught.value.hint)


def test_an_empty_set_is_refused() -> None:
    """No core at all is a mistake, not a wish for every core."""
    with pytest.raises(PreflightError, match="empty"):
        check_cpu_set("a", [])


def test_cores_that_the_kernel_withheld_are_noticed() -> None:
    """A process that runs on other cores than asked is an error; one that is gone is not."""
    own = os.sched_getaffinity(0)
    check_granted("a", os.getpid(), sorted(own))
    with pytest.raises(PreflightError, match="got"):
        check_granted("a", os.getpid(), [*own, max(own) + 1])
