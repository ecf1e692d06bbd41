"""LoRA adapters: tenants that share one server and one base model, each with its own weights."""

from __future__ import annotations

import json
from pathlib import Path

from fairshare.errors import SpecError
from fairshare.sharing.plan import Slot
from fairshare.spec.launcher import Engine, Launcher

_RANKS = (16, 32, 64, 128, 256, 320, 512)  # what vLLM allows for --max-lora-rank; 16 is its default


def adapter_arguments(launcher: Launcher, slot: Slot) -> list[str]:
    """The arguments by which the server learns its adapters, each named after its tenant.

    Raises:
        SpecError: the engine cannot be given adapters, or one of them cannot be read.
    """
    if not slot.adapters:
        return []
    if launcher.engine is not Engine.VLLM:
        raise SpecError(
            f"launcher {launcher.name} cannot serve adapters (tenants {', '.join(slot.adapters)})",
            hint="only vLLM launchers can: use one, or remove adapter from the tenants",
        )
    folders = {tenant: Path(path).expanduser().resolve() for tenant, path in slot.adapters.items()}
    rank = max(adapter_rank(folder) for folder in folders.values())
    fitting = next((allowed for allowed in _RANKS if allowed >= rank), None)
    if fitting is None:
        raise SpecError(f"an adapter has rank {rank}; the engine serves at most {_RANKS[-1]}")
    return [
        "--enable-lora",
        "--max-loras",
        str(len(folders)),
        "--max-lora-rank",
        str(fitting),
        "--lora-modules",
        *(f"{tenant}={folder}" for tenant, folder in folders.items()),
    ]


def adapter_rank(folder: Path) -> int:
    """The rank ``r`` that the adapter's ``adapter_config.json`` states.

    Raises:
        SpecError: the folder is not one of an adapter.
    """
    path = folder / "adapter_config.json"
    try:
        rank = json.loads(path.read_text("utf-8"))["r"]
    except FileNotFoundError:
        raise SpecError(f"adapter {folder} does not exist or has no adapter_config.json") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpecError(f"{path} cannot be read as an adapter's configuration: {error}") from None
    if not isinstance(rank, int) or rank < 1:
        raise SpecError(f"{path}: r is {rank!r}, not a positive whole number")
    return rank
