"""Whether a cell says something about each of its tenants."""

from __future__ import annotations

from fairshare.records import ErrorKind, Phase, RequestRecord
from fairshare.runner.account import Account


def account(*errors: ErrorKind | None) -> Account:
    """An account of one tenant's requests that ended so."""
    made = Account()
    for number, error in enumerate(errors):
        made.add(RequestRecord(f"q{number}", "a", "s", Phase.MEASURE, 0, error=error))
    return made


def test_a_tenant_that_got_nothing_fails_the_cell() -> None:
    """Unless a policy refused it all, which is what was to be found out."""
    assert account(ErrorKind.TIMEOUT, ErrorKind.THROTTLED).failure(["a"]) is not None
    assert account(ErrorKind.THROTTLED, ErrorKind.THROTTLED).failure(["a"]) is None
    assert account(ErrorKind.TIMEOUT, None).failure(["a"]) is None
