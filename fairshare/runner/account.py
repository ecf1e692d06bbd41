"""How a cell went for each tenant: what succeeded, what failed and why, and who said nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from fairshare.records import ErrorKind, Phase, RequestRecord

_SILENT = (ErrorKind.UNFINISHED, ErrorKind.STALLED, ErrorKind.TIMEOUT)
_ERROR_TEXTS = 3  # distinct error texts quoted when a tenant got no answer at all


@dataclass(slots=True)
class Account:
    """What is counted while the records stream to disk."""

    sent: Counter[str] = field(default_factory=Counter)
    succeeded: Counter[str] = field(default_factory=Counter)
    errors: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    silent: set[str] = field(default_factory=set)
    """Tenants of whom a request, of whichever phase, had no end of the server's making."""

    def add(self, record: RequestRecord) -> None:
        """Count one record; the figures are of the measured window."""
        if record.error in _SILENT:
            self.silent.add(record.tenant)
        if record.phase is not Phase.MEASURE:
            return
        self.sent[record.tenant] += 1
        if record.error is None:
            self.succeeded[record.tenant] += 1
        else:
            text = (record.error_text or "").splitlines()
            self.errors[record.tenant][f"{record.error.value}: {text[0] if text else ''}"] += 1

    def failure(self, tenants: list[str]) -> str | None:
        """Why the cell says nothing about some tenant, where that is somebody's fault.

        That a policy lets nothing of a tenant through is a finding, and no fault.
        """
        for tenant in tenants:
            throttled = all(kind.startswith(ErrorKind.THROTTLED) for kind in self.errors[tenant])
            if self.sent[tenant] and not self.succeeded[tenant] and not throttled:
                kinds = "; ".join(
                    f"{count} x {kind}"
                    for kind, count in self.errors[tenant].most_common(_ERROR_TEXTS)
                )
                late = all(kind.startswith(ErrorKind.UNFINISHED) for kind in self.errors[tenant])
                advice = "; lower the load, or give it more time with --drain" if late else ""
                count = self.sent[tenant]
                return f"tenant {tenant}: none of {count} requests succeeded ({kinds}){advice}"
        return None

    def unheard(self, tenants: list[str]) -> list[str]:
        """Tenants that began no request in the window: it has no latencies of theirs."""
        return [tenant for tenant in tenants if not self.sent[tenant]]
