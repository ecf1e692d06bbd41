"""What can be chosen of FairServe, and what its artifact's schedulers chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairshare.scheduling.fairserve_oit import THROTTLES
from fairshare.scheduling.fairserve_wsc import COUNTERS, Typical
from fairshare.scheduling.offer import option


@dataclass(frozen=True, slots=True)
class FairServeOptions:
    """Each part of FairServe by itself."""

    counter: str = option(
        "expectation", "when service is charged, and by what it is divided", one_of=tuple(COUNTERS)
    )
    expectation: str = option(
        "bounded",
        "whether users with a running chain go first: never, within the lead, or always",
        one_of=("never", "bounded", "always"),
    )
    lead: float = option(
        8.0, "by how many typical requests such a user may be ahead (bounded)", least=0
    )
    throttle: str = option(
        "interaction", "when the limits are looked at, and for which calls", one_of=tuple(THROTTLES)
    )
    user_limit: int = option(0, "requests of a user in a minute; 0: any number", least=0)
    app_limit: int = option(0, "requests to an application in a minute; 0: any number", least=0)
    service_debt: bool = option(
        False, "a user with a later call that did not fit lets the next user go first, once"
    )
    apps: str = option(
        "", "typical tokens by application, input/system/output: chat=200/100/50,code=900/0/300"
    )

    def typical(self) -> dict[str, Typical]:
        """What ``apps`` says.

        Raises:
            ValueError: it cannot be read.
        """
        found = {}
        for each in filter(None, self.apps.split(",")):
            app, _, numbers = each.partition("=")
            tokens = numbers.split("/")
            if not app or len(tokens) != 3 or not all(one.strip().isdecimal() for one in tokens):
                raise ValueError(
                    f"option apps of policy fairserve must be like chat=200/100/50, not {each!r}"
                )
            found[app.strip()] = Typical(*(float(one) for one in tokens))
        return found


_COMPONENTS = {"counter": "components", "expectation": "never"}
_FINAL = {"counter": "expectation", "expectation": "always"}
_USER = {"user_limit": 20}
_BOTH = {"user_limit": 20, "app_limit": 200}

ARTIFACT: Mapping[str, Mapping[str, Any]] = {
    "fs_fair": {**_COMPONENTS, "throttle": "never"},
    "fs_fair_user_limit": {**_COMPONENTS, "throttle": "arrival", **_USER},
    "fs_fair_userapp_limit": {**_COMPONENTS, "throttle": "arrival", **_BOTH},
    "fs_fair_overload_limit": {**_COMPONENTS, "throttle": "overload", **_BOTH},
    "fs_fair_interaction_limit": {
        **_COMPONENTS,
        "throttle": "interaction-debt",
        "service_debt": True,
        **_BOTH,
    },
    "fs_fair_interaction_limit_worpmdebt": {
        **_COMPONENTS,
        "throttle": "interaction-lasting-debt",
        "service_debt": True,
        **_BOTH,
    },
    "fs_fair_interaction_limit_expect": {**_FINAL, "throttle": "interaction", **_BOTH},
    "fs_fair_wsc": {**_COMPONENTS, "throttle": "never"},
    "fs_fair_wsc_expect": {**_FINAL, "throttle": "never"},
    "fs_fair_wsc_limit": {**_COMPONENTS, "throttle": "arrival", **_BOTH},
    "fs_fair_odt_wsc_limit": {**_COMPONENTS, "throttle": "overload", **_BOTH},
}
"""The artifact's schedulers. It demands limits; here they have some that can be changed."""
