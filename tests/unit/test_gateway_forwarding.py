"""What a request says of itself beyond whose it is."""

from __future__ import annotations

from fairshare.gateway.forwarding import NO_HINTS, Hints, hints


def test_labels_for_a_scheduler_in_the_engine_are_heeded_by_a_gateway_too() -> None:
    """A client labels its bodies once, wherever the policy decides; headers come first."""
    labels = {"tenant": "a", "app": "shop", "interaction": "i7", "call": 2, "calls": 3}
    body = {"vllm_xargs": labels}
    said = Hints(app="shop", interaction="i7", call=2, calls=3)
    assert hints({}, body) == said
    assert hints({"x-fairshare-app": "bank"}, body) == Hints(app="bank")
    assert hints({}, {"vllm_xargs": "shop"}) is NO_HINTS
