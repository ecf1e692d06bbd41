"""``{name}`` in a launcher's command, arguments and environment, and the values they stand for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from fairshare.devices.device import Device
from fairshare.errors import SpecError
from fairshare.serving.memory import cache_bytes, gpu_memory
from fairshare.serving.models import ModelFacts
from fairshare.sharing.plan import Slot
from fairshare.spec.launcher import Launcher

HOST = "127.0.0.1"
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")  # JSON braces hold quotes, so they never match


def values_of(
    launcher: Launcher,
    slot: Slot,
    model: ModelFacts,
    *,
    device: Device,
    port: int,
    run_dir: Path,
    python: str,
) -> dict[str, str | None]:
    """What each placeholder stands for in this slot; None where the slot has no such limit."""
    threads = slot.threads or (len(slot.cpu_set) if slot.cpu_set else None)
    values: dict[str, object] = {
        "python": python,
        "model": model.path,
        "served_model": model.served_name,
        "host": HOST,
        "port": port,
        "memory_bytes": slot.memory_bytes,
        "kv_bytes": kv_bytes_of(launcher, slot, model, device),
        "memory_fraction": f"{slot.memory_fraction:.6g}",
        "compute_fraction": f"{slot.compute_fraction:.6g}",
        "memory_utilization": f"{gpu_memory(slot, device).utilization:.4f}",
        "cores": ",".join(map(str, slot.cpu_set)) if slot.cpu_set else None,
        "threads": threads,
        "slot": slot.name,
        "run_dir": run_dir,
    }
    return {name: None if value is None else str(value) for name, value in values.items()}


def kv_bytes_of(launcher: Launcher, slot: Slot, model: ModelFacts, device: Device) -> int | None:
    """The KV-cache bytes of a slot: its fraction of the launcher's if given, else what fits.

    None where the engine is to measure what fits.
    """
    stated = share_of_kv_bytes(launcher, slot)
    if stated is not None:
        return stated
    fits = cache_bytes(launcher, slot, model, device)
    return None if fits is None else max(0, fits)


def share_of_kv_bytes(launcher: Launcher, slot: Slot) -> int | None:
    """A slot's fraction of the launcher's ``kv_bytes``, None where the launcher states none."""
    return None if launcher.kv_bytes is None else int(launcher.kv_bytes * slot.memory_fraction)


def fill(text: str, values: Mapping[str, str | None]) -> str | None:
    """The text with its placeholders filled in; None if one of them has no value here.

    Raises:
        SpecError: a placeholder is not known.
    """
    for name in _PLACEHOLDER.findall(text):
        if name not in values:
            close = difflib.get_close_matches(name, values, n=1)
            known = ", ".join(f"{{{known}}}" for known in values)
            hint = f"did you mean {{{close[0]}}}?" if close else f"known: {known}"
            raise SpecError(f"the launcher uses {{{name}}}, which stands for nothing", hint=hint)
        if values[name] is None:
            return None
    return _PLACEHOLDER.sub(lambda match: values[match.group(1)] or "", text)


def fill_command(command: Iterable[str], values: Mapping[str, str | None]) -> list[str]:
    """The command line; an option whose value is not set in this slot is left out as a whole."""
    filled: list[str] = []
    for argument in command:
        text = fill(argument, values)
        if text is not None:
            filled.append(text)
        elif filled and filled[-1].startswith("--") and "=" not in filled[-1]:
            filled.pop()
    return filled


def uses(launcher: Launcher, name: str) -> bool:
    """Whether the launcher's command, arguments or environment mention a placeholder."""
    texts = [*launcher.command, *launcher.env.values(), *map(str, launcher.args.values())]
    return any(f"{{{name}}}" in text for text in texts)
