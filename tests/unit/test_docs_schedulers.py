"""What docs/schedulers.md says of names, options and defaults is what the code has."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from fairshare.scheduling.offer import Offer
from fairshare.scheduling.policies import OFFERS

TEXT = (Path(__file__).parents[2] / "docs/schedulers.md").read_text()
SIMPLE = [offer for offer in OFFERS if f"**`{offer.name}`**" in TEXT and offer.name != "lcf"]
"""Those with a paragraph of their own, in which a default stands in brackets behind its option."""


@pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: offer.name)
def test_each_policy_is_described(offer: Offer) -> None:
    """Its name, all its options and its other names (their ends, where a row abbreviates) are."""
    said = re.findall(r"`(?:\.\.\.)?([^`\n]+)`", TEXT) + re.findall(r"### (.+)", TEXT)
    assert any(offer.name in text for text in said)
    assert {each.name for each in fields(offer.options)} <= set(said)
    assert all(any(alias.endswith(text) for text in said) for alias in offer.aliases)


@pytest.mark.parametrize("offer", SIMPLE, ids=lambda offer: offer.name)
def test_defaults_of_the_simple_policies_are_those_of_the_code(offer: Offer) -> None:
    """The first thing in the brackets behind an option is its default."""
    paragraph = TEXT.partition(f"**`{offer.name}`**")[2].partition("\n")[0].partition("**`")[0]
    for each in fields(offer.options):
        default = str(each.default).lower()
        if isinstance(each.default, int | float) and not isinstance(each.default, bool):
            default = f"{each.default:,g}" if each.default < 10_000 else f"{each.default:,}"
        said = re.search(rf"`{each.name}`[^`(]*\(`?([\w,.]+\w|\w)", paragraph)
        assert said is not None, f"{each.name} with its default in brackets"
        assert said[1] == default
