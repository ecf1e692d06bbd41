"""Small questions to a server: is it there, is it healthy, which models does it serve."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

import aiohttp

_MAX_BYTES = 4 * 1024 * 1024


class NotHttpError(Exception):
    """Somebody answers, but not in HTTP."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered."""

    status: int
    body: bytes


def new_session() -> aiohttp.ClientSession:
    """A session that uses no proxy and keeps no connection: a kept one may be closed under us.

    It has no time limit of its own: aiohttp's takes a cancellation in the moment in which it fires
    for itself, and whoever cancelled waits for ever.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        trust_env=False,
    )


async def get(
    session: aiohttp.ClientSession, url: str, api_key: str | None, timeout_s: float = 2.0
) -> Reply | None:
    """The answer to a GET, or None if nobody answers (in time).

    Raises:
        NotHttpError: what came back is not HTTP.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        async with (
            asyncio.timeout(timeout_s),
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            body = await response.content.read(_MAX_BYTES)
            # read() may return early: the rest of a long answer follows piece by piece.
            while len(body) < _MAX_BYTES and (more := await response.content.read(_MAX_BYTES)):
                body += more
            return Reply(response.status, body)
    except (TimeoutError, aiohttp.ClientConnectionError):
        return None
    except aiohttp.ClientError as error:
        raise NotHttpError(str(getattr(error, "message", "") or error)) from None


def listed_models(body: bytes) -> list[str] | None:
    """The ids in an answer of ``/v1/models``; None if it is not such an answer."""
    try:
        entries = json.loads(body)["data"]
        return [str(entry["id"]) for entry in entries]
    except (ValueError, KeyError, TypeError):
        return None
