"""What a stored cell says of its tenants' SLOs: the evidence that a search for the knee goes by."""

from __future__ import annotations

import numpy as np

from fairshare.analysis.analyze import cell_requests
from fairshare.analysis.knee import Tally, Window
from fairshare.analysis.metrics import met_slo, start_s
from fairshare.records import CellStatus, ErrorKind
from fairshare.results import StoredCell

# Errors of a server that has too much to do. Any other says that something broke.
_TOO_MUCH = frozenset({ErrorKind.UNFINISHED, ErrorKind.TIMEOUT, ErrorKind.THROTTLED})


def window_of(stored: StoredCell) -> Window | None:
    """Requests of the measured window within their SLO, per tenant that has one.

    None of a cell that could not be measured. One that failed only because no request of a tenant
    was served in time was measured: that is what too high a load looks like.

    Raises:
        ResultsError: damaged records.
    """
    if stored.result.window_ns is None or not _told(stored):
        return None
    requests, tenants = cell_requests(stored)
    open_loop = np.array([bool(tenant.get("open_loop")) for tenant in tenants], dtype=bool)
    measured = requests.select(requests.measured)
    start = start_s(measured, open_loop)
    found = {}
    for number, tenant in enumerate(tenants):
        if slo := tenant.get("slo"):
            own = measured.tenant == number
            met = met_slo(measured.select(own), slo, start[own])
            found[str(tenant["name"])] = Tally(int(met.sum()), int(own.sum()))
    return found


def _told(stored: StoredCell) -> bool:
    """Whether its requests say how much the servers can do."""
    if stored.result.status is not CellStatus.FAILED:
        return stored.result.status is CellStatus.OK
    return all(record.error in {None, *_TOO_MUCH} for record in stored.records())
