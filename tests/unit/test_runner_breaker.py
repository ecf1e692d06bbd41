"""When a deployment is given up."""

from __future__ import annotations

from fairshare.runner.breaker import Breaker

DIED = "server chat died: exit code -9 (pid 4711)\n  | last words"


def test_like_failures_in_a_row_open_it() -> None:
    """Failures that differ in numbers and last words alone are alike; the reason is told."""
    breaker = Breaker(3)
    for pid in (4711, 9, 0xBEEF):
        assert breaker.open("mps-1") is None
        breaker.failed("mps-1", DIED.replace("4711", str(pid)))
    told = breaker.open("mps-1")
    assert told == "not run: 3 failures in a row were alike: " + DIED.splitlines()[0].replace(
        "4711", str(0xBEEF)
    )
    assert breaker.open("mps-2") is None


def test_a_cell_that_works_closes_it() -> None:
    """Only what fails without a success between is taken for hopeless."""
    breaker = Breaker(2)
    breaker.failed("a", DIED)
    breaker.worked("a")
    breaker.failed("a", DIED)
    assert breaker.open("a") is None


def test_failures_of_other_kinds_do_not_add_up() -> None:
    """A deployment with all sorts of failures is not given up: each may be the cell's own."""
    breaker = Breaker(2)
    for reason in (DIED, "no request succeeded", DIED, "the policy failed"):
        breaker.failed("a", reason)
    assert breaker.open("a") is None


def test_zero_never_opens() -> None:
    """Who wants every cell tried gets that."""
    breaker = Breaker(0)
    for _ in range(100):
        breaker.failed("a", DIED)
    assert breaker.open("a") is None
