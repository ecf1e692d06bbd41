"""A policy with its options and its tenants' terms as one line of JSON, for another process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fairshare.scheduling.policies import policy_for
from fairshare.scheduling.policy import SchedulingPolicy, Tenants, Terms


def told(
    name: str, options: Mapping[str, Any] | None = None, tenants: Tenants | None = None
) -> str:
    """The line for what :func:`~fairshare.scheduling.policies.policy_for` is called with.

    Raises:
        ValueError: there is no such policy, or it has no such option.
    """
    policy_for(name, options, tenants)
    tenants = tenants or Tenants()
    line = {
        "policy": name,
        "options": dict(options or {}),
        "tenants": {tenant: asdict(terms) for tenant, terms in tenants.named.items()},
        "default": asdict(tenants.default),
    }
    return json.dumps(line, separators=(",", ":"))


def policy_told(line: str) -> SchedulingPolicy:
    """The policy of such a line; everything but ``policy`` may be left out.

    Raises:
        ValueError: it is no such line, or there is no such policy or option.
    """
    try:
        asked = json.loads(line)
        named = {tenant: Terms(**terms) for tenant, terms in asked.get("tenants", {}).items()}
        tenants = Tenants(named, Terms(**asked.get("default", {})))
        policy, options = asked["policy"], asked.get("options")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{line!r} asks for no policy: {error!r}") from None
    return policy_for(policy, options, tenants)
