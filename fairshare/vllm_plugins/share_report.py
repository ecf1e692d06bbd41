"""What the engine has of its device, told by the process that owns it.

The report is a JSON file ``<pid>.json`` in the folder ``$FAIRSHARE_SHARE_REPORTS``: written
when the device has been initialised, and again when the KV cache has been allocated.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REPORTS_VARIABLE = "FAIRSHARE_SHARE_REPORTS"
_WRAPPED = "_fairshare_share_report"

_log = logging.getLogger("vllm.fairshare")


def register() -> None:
    """Make every worker report; called by vLLM in each of its processes.

    A forked engine has inherited the change, a spawned one is asked to make it again.
    """
    if not os.environ.get(REPORTS_VARIABLE):
        return
    try:
        from vllm.v1.worker.worker_base import WorkerWrapperBase  # noqa: PLC0415

        for name, tell in (("init_device", _device), ("initialize_from_config", _kv_cache)):
            _report_after(WorkerWrapperBase, name, tell)
    except Exception:
        _log.warning("fairshare: the engine's share will not be reported", exc_info=True)


def _report_after(owner: Any, name: str, tell: Callable[[Any], dict[str, Any]]) -> None:
    """Let the method of that name end with a report of what ``tell`` sees in its worker."""
    method = getattr(owner, name)
    if getattr(method, _WRAPPED, False):
        return

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = method(self, *args, **kwargs)
        try:
            _write(tell(self.worker))
        except Exception:
            _log.warning("fairshare: the engine's share is not reported", exc_info=True)
        return result

    setattr(wrapped, _WRAPPED, True)
    setattr(owner, name, wrapped)


def _device(worker: Any) -> dict[str, Any]:
    """What this process was given; it has a context on its device already, so none is made."""
    import torch  # noqa: PLC0415
    import vllm  # noqa: PLC0415

    kind = str(worker.device.type)
    seen: dict[str, Any] = {
        "engine": "vllm",
        "engine_version": str(vllm.__version__),
        "device": kind,
        "cpus": sorted(os.sched_getaffinity(0)),
        "compute_threads": torch.get_num_threads(),
    }
    if kind == "cuda":
        properties = torch.cuda.get_device_properties(worker.device)
        free_bytes, total_bytes = torch.cuda.mem_get_info(worker.device)
        uuid = getattr(properties, "uuid", None)
        seen |= {
            "uuid": None if uuid is None else str(uuid),
            "name": str(properties.name),
            "sm_count": int(properties.multi_processor_count),
            "total_bytes": int(total_bytes),
            "free_bytes": int(free_bytes),
        }
    return seen


def _kv_cache(worker: Any) -> dict[str, Any]:
    """The cache as it was allocated: layers may share a storage, so each storage counts once."""
    caches = getattr(worker.model_runner, "kv_caches", None)
    storages = {
        storage.data_ptr(): int(storage.nbytes())
        for tensor in _tensors(caches)
        for storage in (tensor.untyped_storage(),)
    }
    blocks = getattr(worker.cache_config, "num_gpu_blocks", None)
    size = getattr(worker.cache_config, "block_size", None)
    return {
        "kv_cache_bytes": sum(storages.values()) if storages else None,
        "kv_cache_blocks": None if blocks is None else int(blocks),
        "kv_cache_tokens": int(blocks) * int(size) if blocks and size else None,
    }


def _tensors(nested: Any) -> Iterator[Any]:
    if isinstance(nested, dict):
        nested = nested.values()
    elif hasattr(nested, "untyped_storage"):
        yield nested
        return
    for each in nested or ():
        yield from _tensors(each)


def _write(seen: dict[str, Any]) -> None:
    """Add ``seen`` to this process's report; a reader finds the old one or the new one whole."""
    folder = Path(os.environ[REPORTS_VARIABLE])
    path = folder / f"{os.getpid()}.json"
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump({**known, "pid": os.getpid(), **seen}, file)
    draft.replace(path)
