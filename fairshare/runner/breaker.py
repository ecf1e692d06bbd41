"""When a deployment is given up: its cells fail one after the other, and all in the same way."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# What differs between two reports of the same failure: numbers, addresses, ids.
_VARYING = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]*\d[0-9a-f]*\b", re.IGNORECASE)
_LONGEST = 200


@dataclass(slots=True)
class Breaker:
    """Counts like failures in a row, by deployment, over all rounds; 0 as ``limit``: never opens.

    A deployment whose servers do not start fails once, however many cells that leaves out.
    """

    limit: int
    _alike: dict[str, tuple[str, int]] = field(default_factory=dict, init=False)
    _reasons: dict[str, str] = field(default_factory=dict, init=False)

    def failed(self, deployment: str, reason: str) -> None:
        """One more failure, with its reason for people."""
        first = reason.strip().partition("\n")[0][:_LONGEST]
        kind = _VARYING.sub("#", first)
        before, count = self._alike.get(deployment, (kind, 0))
        count = count + 1 if before == kind else 1
        self._alike[deployment] = kind, count
        if self.limit and count >= self.limit:
            self._reasons.setdefault(deployment, f"{count} failures in a row were alike: {first}")

    def worked(self, deployment: str) -> None:
        """A cell was measured: what failed before it has nothing to do with what fails now."""
        self._alike.pop(deployment, None)

    def open(self, deployment: str) -> str | None:
        """Why cells of the deployment are left out now, None while they are run."""
        reason = self._reasons.get(deployment)
        return None if reason is None else f"not run: {reason}"
