"""Whether a server still answers: one request of one token, outside of any measurement."""

from __future__ import annotations

import asyncio

from fairshare.load.exchange import Exchange
from fairshare.load.target import Target
from fairshare.load.transport import TransportError
from fairshare.load.transports import transport_to
from fairshare.records import Phase, RequestRecord, TransportKind
from fairshare.wire.answer import WireError
from fairshare.workload.requests import PlannedRequest

_TOKEN_ID = 100  # every vocabulary has it


async def answers(target: Target, timeout_s: float) -> bool:
    """Whether the server answers a request of one token within ``timeout_s``, be it by an error.

    Health checks do not tell: vLLM's stays green while its engine hangs.
    """
    ids, text = ([_TOKEN_ID], None) if target.token_id_prompts else (None, "hello")
    request = PlannedRequest("probe", target.tenant, None, ids, text, 1, 1)
    record = RequestRecord("probe", target.tenant, target.server, Phase.DRAIN, 0)
    transport = transport_to(target.base_url, TransportKind.AIOHTTP)
    try:
        async with asyncio.timeout(timeout_s):
            await transport.post(
                target.path, target.headers(), target.body(request), Exchange(target, record, 0, 1)
            )
    except TimeoutError:
        return False
    except (TransportError, WireError):
        return True  # whoever refuses is awake; whether it died is seen elsewhere
    finally:
        await transport.close()
    return True
