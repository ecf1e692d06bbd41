"""Policies are found by their names and those of the artifacts; what is wrong is said in full."""

from __future__ import annotations

from typing import Any

import pytest

from fairshare.scheduling.offer import read_options
from fairshare.scheduling.policies import OFFERS, aliases, names, policy_for


def test_every_name_makes_its_policy() -> None:
    """A policy answers to its own name and to each alias, and starts with nobody waiting."""
    for name in [*names(), *aliases()]:
        policy = policy_for(name)
        assert len(policy) == 0
        assert policy.name == aliases().get(name, name)


def test_no_name_means_two_policies() -> None:
    """Names and aliases are all different, so that the order of the list decides nothing."""
    said = [*names(), *(alias for offer in OFFERS for alias in offer.aliases)]
    assert len(said) == len(set(said))


def test_defaults_and_aliases_keep_their_own_ranges() -> None:
    """Every default, and every option that an alias stands for, is one that a user could write."""
    for offer in OFFERS:
        defaults = {name: getattr(offer.options(), name) for name in _fields(offer.options)}
        assert read_options(offer, defaults) == offer.options()
        for meant in offer.aliases.values():
            read_options(offer, meant)


def _fields(options: type[Any]) -> list[str]:
    return list(options.__dataclass_fields__)


def test_an_unknown_policy_is_answered_with_those_there_are() -> None:
    """The error names what was asked for and every policy."""
    with pytest.raises(ValueError, match="no policy 'vtx'") as caught:
        policy_for("vtx")
    assert all(name in str(caught.value) for name in names())


def test_an_unknown_option_is_answered_with_those_there_are() -> None:
    """The error names the option, the policy, and that there is none."""
    with pytest.raises(ValueError, match="fcfs has no option 'limit'; it has: none"):
        policy_for("fcfs", {"limit": 3})
