"""Whether a starting server is ready; if it never will be, why."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import aiohttp

from fairshare.processes.spawn import ManagedProcess
from fairshare.serving.diagnosis import exit_text
from fairshare.serving.probes import NotHttpError, Reply, get, listed_models
from fairshare.spec.launcher import Launcher

POLL_S = 0.2
_PATIENCE_S = 2.0  # a wrong answer may be the last of something that is just going away
_SHOWN_BYTES = 80


class NeverReadyError(Exception):
    """The server will not become ready; the text completes ``server NAME ...``."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look at the server found; ``wrong`` is what no waiting mends."""

    ready: bool
    text: str
    wrong: bool = False


async def wait_until_ready(
    process: ManagedProcess,
    session: aiohttp.ClientSession,
    launcher: Launcher,
    *,
    base_url: str,
    served_model: str,
    api_key: str | None,
) -> None:
    """Return once our own process answers as a ready server should.

    Raises:
        NeverReadyError: it exited, answers wrongly, or took longer than ``ready_timeout_s``.
    """
    deadline_s = time.monotonic() + launcher.ready_timeout_s
    wrong_since_s: float | None = None
    exited = asyncio.ensure_future(process.wait())
    try:
        while True:
            finding = await look(
                session, launcher, base_url=base_url, served_model=served_model, api_key=api_key
            )
            now_s = time.monotonic()
            # Asked after the look: an answer counts only if our own child was alive to give it.
            if exited.done():
                raise NeverReadyError(f"{exit_text(exited.result())} before it was ready")
            if finding.ready:
                return
            wrong_since_s = (wrong_since_s or now_s) if finding.wrong else None
            if wrong_since_s is not None and now_s - wrong_since_s > _PATIENCE_S:
                raise NeverReadyError(f"will never be ready: {finding.text}")
            if now_s > deadline_s:
                limit = f"{launcher.ready_timeout_s:g} s (ready_timeout_s)"
                raise NeverReadyError(f"was not ready after {limit}: {finding.text}")
            await asyncio.wait({exited}, timeout=POLL_S)
    finally:
        exited.cancel()


async def look(
    session: aiohttp.ClientSession,
    launcher: Launcher,
    *,
    base_url: str,
    served_model: str,
    api_key: str | None,
) -> Finding:
    """Ask for the health, then for the models; the first that is not as it should be is told."""
    try:
        health = await get(session, base_url + launcher.health_path, api_key)
        finding = _judge_health(launcher, base_url, health)
        if not finding.ready or launcher.models_path is None:
            return finding
        models = await get(session, base_url + launcher.models_path, api_key)
        return _judge_models(launcher.models_path, served_model, models)
    except NotHttpError as error:
        text = f"what answers at {base_url} does not speak HTTP ({_shortened(str(error))})"
        return Finding(False, text, wrong=True)


def _judge_health(launcher: Launcher, base_url: str, health: Reply | None) -> Finding:
    path = launcher.health_path
    if health is None:
        return Finding(False, f"nobody answers at {base_url}{path}")
    if health.status == 200:
        return Finding(True, "ready")
    if health.status >= 500:
        return Finding(False, f"{path} answers {health.status}")
    text = f"{path} answers {health.status} (is health_path right?)"
    return Finding(False, text, wrong=True)


def _judge_models(path: str, served_model: str, models: Reply | None) -> Finding:
    if models is None or models.status >= 500:
        return Finding(False, f"{path} does not answer yet")
    listed = listed_models(models.body) if models.status == 200 else None
    if listed is None:
        shown = _shortened(models.body[:_SHOWN_BYTES].decode("utf-8", "replace"))
        text = f"{path} answers {models.status} and no list of models: {shown!r}"
        return Finding(False, text, wrong=True)
    if served_model not in listed:
        names = ", ".join(listed) or "none"
        text = f"it serves {names}, not {served_model}: another server answers on this port"
        return Finding(False, text, wrong=True)
    return Finding(True, "ready")


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_BYTES else f"{line[:_SHOWN_BYTES]}..."
