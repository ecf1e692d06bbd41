"""From flags to the search of a sweep."""

from __future__ import annotations

from typing import Any

import click
import pytest

from fairshare.cli.searching import search_of
from fairshare.errors import SpecError
from fairshare.spec.loading import validate
from fairshare.spec.matrix import Matrix
from fairshare.spec.search import KNEE_RUNS, KneeSearch, ShareSweep


def _matrix(**fields: Any) -> Matrix:
    return validate({"name": "m", "scenarios": ["two-tenants"], **fields}, Matrix)


def test_flags_say_what_is_searched_and_how() -> None:
    """Each flag sets its field; what is not said is the default."""
    knee = search_of({"find_knee": True, "attainment": 0.95}, None)
    assert _matrix(search=knee).search == KneeSearch(attainment=0.95)
    shares = search_of({"share_sweep": True, "share_step": 25}, None)
    assert _matrix(search=shares).search == ShareSweep(step=25)
    assert search_of({}, {"kind": "knee"}) is None, "the file's own stands"
    assert search_of({"resolution": 0.2}, {"kind": "knee", "attainment": 0.8}) == {
        "kind": "knee", "attainment": 0.8, "resolution": 0.2,
    }  # fmt: skip
    assert search_of({"share_sweep": True}, {"kind": "knee", "attainment": 0.8}) == {
        "kind": "shares"
    }


@pytest.mark.parametrize(
    "given",
    [{"find_knee": True, "share_sweep": True}, {"attainment": 0.9}, {"share_step": 5}],
)
def test_flags_that_would_do_nothing_are_refused(given: dict[str, Any]) -> None:
    """A flag of a search that is not asked for is a slip."""
    with pytest.raises(click.UsageError):
        search_of(given, None)


def test_a_search_chooses_the_load_itself() -> None:
    """Several loads beside a search for the knee are refused; one is where it begins."""
    with pytest.raises(SpecError, match="chooses the load itself"):
        _matrix(search={"kind": "knee"}, load_scale=[1, 2])
    with pytest.raises(SpecError, match="chooses the load itself"):
        _matrix(search={"kind": "knee"}, concurrency=[1, 2])
    begun = _matrix(search={"kind": "knee"}, load_scale=[2])
    assert (begun.rounds, begun.windows_per_point) == (1, KNEE_RUNS)
    repeated = _matrix(search={"kind": "knee"}, num_runs=3)
    assert (repeated.rounds, repeated.windows_per_point) == (1, 3)
    assert _matrix(search={"kind": "shares"}, num_runs=3).rounds == 3
