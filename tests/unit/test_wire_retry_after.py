"""When a server that refuses wants to be asked again."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from fairshare.wire.retry_after import retry_after_s


@pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("2", 2), (" 120 ", 120)])
def test_a_number_is_seconds(value: str, seconds: float) -> None:
    """The usual form."""
    assert retry_after_s(value) == seconds


def test_a_date_is_seconds_from_now() -> None:
    """The other form; a date that has passed is now."""
    found = retry_after_s(formatdate(time.time() + 60, usegmt=True))
    assert found is not None
    assert 55 <= found <= 61
    assert retry_after_s(formatdate(time.time() - 60, usegmt=True)) == 0


@pytest.mark.parametrize(
    "value", ["", "soon", "-1", "1.5", "1e9", "9" * 400, "Wed, 99 Foo 2026 00:00:00 GMT", "\xb2"]
)
def test_anything_else_is_nothing(value: str) -> None:
    """A header that says nothing usable is no error of the request."""
    assert retry_after_s(value) is None
