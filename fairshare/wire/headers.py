"""Headers by which gateways are told whose a request is."""

from __future__ import annotations

# What gateways call flows by: the Gateway API inference extension, and llm-d since 0.8.
FAIRNESS_HEADERS = ("x-gateway-inference-fairness-id", "x-llm-d-inference-fairness-id")
