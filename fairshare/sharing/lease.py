"""One run at a time on a device: a lock file per device, held as long as the run lives.

The kernel lets the lock go with the process, however it ends; no child inherits it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fairshare import assets
from fairshare.devices.device import Device
from fairshare.errors import DeviceBusyError, PreflightError
from fairshare.spec.launcher import DeviceKind


@asynccontextmanager
async def lease(device: Device, owner: str) -> AsyncIterator[None]:
    """Hold the device while the block lasts; a simulated GPU is private and needs no lease.

    Args:
        device: what to hold.
        owner: who holds it, for the person who meets the lock: the results folder.

    Raises:
        DeviceBusyError: another run holds it; says which.
        PreflightError: the folder of locks cannot be used.
    """
    if device.kind is DeviceKind.VIRTUAL:
        yield
        return
    descriptor = _open(device)
    try:
        _lock(descriptor, device)
        holder = {"pid": os.getpid(), "since": time.time(), "owner": owner}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
            # Closing alone would wait for a child that is between its fork and its exec.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)  # the file stays: removing it would let two hold "the" lock


def lock_path(device: Device) -> Path:
    """The lock file of a device."""
    folder = assets.state_dir() / "locks"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', device.id)}.lock"


def _open(device: Device) -> int:
    try:
        # A link could make us truncate another file.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(lock_path(device), flags, 0o600)
    except OSError as error:
        raise PreflightError(
            f"cannot lock the device {device.id}: {error}",
            hint="FAIRSHARE_STATE_DIR names another folder for locks and journals",
        ) from None


def _lock(descriptor: int, device: Device) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        raise DeviceBusyError(
            f"another run holds the device {device.id}{_holder(descriptor)}",
            hint="wait for it, or stop it",
        ) from None


def _holder(descriptor: int) -> str:
    """Who holds the lock, as far as the file says; it may be read while being written."""
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        since = time.strftime("%H:%M:%S", time.localtime(holder["since"]))
        return f": pid {holder['pid']} since {since}, results in {holder['owner']}"
    except (ValueError, KeyError, TypeError):
        return ""
