"""One run at a time on a device, whoever runs it: a lock per device for all users of the machine.

The kernel lets the lock go with the process, however it ends; no child inherits it.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fairshare.devices.device import Device
from fairshare.devices.driver import STATE_VARIABLE, Driver
from fairshare.errors import DeviceBusyError, PreflightError
from fairshare.processes import locks
from fairshare.spec.launcher import DeviceKind


@asynccontextmanager
async def lease(device: Device, driver: Driver, results: Path) -> AsyncIterator[Path]:
    """Hold the device while the block lasts; yields the lock's path.

    Args:
        device: what to hold.
        driver: how it is reached; a simulated GPU is the folder that it leads to.
        results: the results folder, for the person who meets the lock.

    Raises:
        DeviceBusyError: another run holds it; says which.
        PreflightError: the folder of locks cannot be used.
    """
    path = lock_path(device, driver)
    descriptor = _take(path, device, results)
    try:
        yield path
    finally:
        locks.let_go(path, descriptor)


def lock_path(device: Device, driver: Driver) -> Path:
    """The lock file of a device.

    Raises:
        PreflightError: there is no folder for locks.
    """
    name = device.id
    if device.kind is DeviceKind.VIRTUAL:
        name = simulated_name(Path(driver.env[STATE_VARIABLE]))
    return locks.path_of(name)


def simulated_name(folder: Path) -> str:
    """Under which name a simulated GPU is locked: there are as many as there are folders."""
    return f"virtual-{hashlib.sha256(bytes(folder.resolve())).hexdigest()[:16]}"


def _take(path: Path, device: Device, results: Path) -> int:
    try:
        descriptor = locks.take(path, f"{device.id}, results in {results.absolute()}")
    except OSError as error:
        raise PreflightError(
            f"cannot lock the device {device.id} with {path}: {error.strerror}",
            hint="remove the file if no fairshare runs, or name another folder for locks, the "
            "same for all users, in FAIRSHARE_LOCK_DIR",
        ) from None
    if descriptor is not None:
        return descriptor
    holder = locks.holder_of(path)
    stop = f"kill -INT {holder.pid}" if holder and holder.pid else "Ctrl-C"
    raise DeviceBusyError(
        f"another run holds the device {device.id}: {holder or 'it has just ended'}",
        hint=f"wait for it, or stop it ({stop}); fairshare status shows who holds what",
    )
