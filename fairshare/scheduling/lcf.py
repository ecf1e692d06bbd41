"""LCF, least counter first: VTC without its lift, as a warning.

A tenant that was idle comes back with a low counter and is served alone until it has caught up.

Source: VTC, arXiv 2401.00588, section 5 (a baseline).
"""

from __future__ import annotations

from fairshare.scheduling.offer import Offer
from fairshare.scheduling.vtc import Vtc, VtcOptions


class Lcf(Vtc):
    """The least counter first, counted from the beginning of time."""

    name = "lcf"
    lifts = False


OFFER = Offer(
    name=Lcf.name,
    says="the tenant that has got least service ever (VTC without its lift)",
    make=Lcf,
    options=VtcOptions,
    aliases={"lcf_fair": {}},
)
