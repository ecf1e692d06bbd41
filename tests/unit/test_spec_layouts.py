"""MIG layouts in every spelling that people have for them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from fairshare.spec.layouts import layout_text, profiles_of, shares_in
from fairshare.spec.mig import MigSpec

# As in a configuration of NVIDIA's mig-parted.
PARTED = """
- devices: all
  mig-enabled: true
  mig-devices:
    "1g.5gb+me": 1
    "2g.10gb": 2
"""


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("3:2:1:1", "3:2:1:1"),
        ("50/50", "50:50"),
        ("0.5, 0.25, 0.25", "0.5:0.25:0.25"),
        ([3, 1], "3:1"),
        ("3g.20gb, 2g.10gb", "3g.20gb,2g.10gb"),
        (["1g.24gb+me.all", "1g.24gb-me"], "1g.24gb+me.all,1g.24gb-me"),
        ({"3g.20gb": 2}, "3g.20gb,3g.20gb"),
        ({"mig-devices": {"3g.20gb": 1, "1g.5gb": 2}}, "3g.20gb,1g.5gb,1g.5gb"),
        (yaml.safe_load(PARTED), "1g.5gb+me,2g.10gb,2g.10gb"),
    ],
)
def test_every_spelling_becomes_one(said: Any, means: str) -> None:
    """What was said is kept in one form, which means itself when it is read again."""
    assert layout_text(said) == means
    assert layout_text(means) == means
    assert MigSpec(layout=said).layout == means


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (yaml.safe_load("3:2:1:1"), "YAML reads 3:2:1:1 as a number"),
        ("3:x", "'x' is neither a number nor a MIG profile"),
        ("3:0", "0 is no weight"),
        ("1:nan", "nan is no weight"),
        ("", "neither"),
        ([], "between 1 and 64 parts"),
        ("3g.20gb,half", "neither"),
        ({"3g.20gb": 0}, "0 is no number of instances"),
        ({"3g.20gb": 65}, "65 is no number of instances"),
        ({"big": 1}, "'big' is no MIG profile"),
        ({"mig-devices": {"3g.20gb": 1}, "layout": 1}, "mig-parted has no 'layout' here"),
        ({"mig-enabled": False, "mig-devices": {"3g.20gb": 1}}, "MIG enabled"),
        ({"mig-enabled": True}, "needs mig-devices"),
    ],
)
def test_what_is_no_layout_is_refused(said: Any, complaint: str) -> None:
    """With what is wrong, never as something else: YAML's 3:2:1:1 is the number 655261."""
    with pytest.raises(ValidationError, match=complaint):
        MigSpec(layout=said)


def test_weights_are_shares_and_profiles_are_names() -> None:
    """The two kinds of layout, told apart by their one form."""
    assert profiles_of("3:1") is None
    assert shares_in("3:1") == [0.75, 0.25]
    assert profiles_of("3g.20gb,1g.5gb+me") == ["3g.20gb", "1g.5gb+me"]
