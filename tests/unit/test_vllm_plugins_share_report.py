"""The report of an engine's share, against a small model of vLLM's worker and of torch."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fairshare.vllm_plugins.share_report import REPORTS_VARIABLE, register


class _Tensor:
    """A view of a storage."""

    def __init__(self, place: int, size: int) -> None:
        self._storage = SimpleNamespace(data_ptr=lambda: place, nbytes=lambda: size)

    def untyped_storage(self) -> Any:
        return self._storage


class Worker:
    """A worker that knows its device from the start and its cache later."""

    def __init__(self, device: str) -> None:
        self.device = SimpleNamespace(type=device)
        self.cache_config = SimpleNamespace(num_gpu_blocks=None, block_size=16)
        self.model_runner = SimpleNamespace(kv_caches=[])


class Torch(ModuleType):
    """One GPU of 132 SMs, capped to 66 of them and to 20 GiB."""

    def __init__(self) -> None:
        super().__init__("torch")
        properties = SimpleNamespace(uuid="abcd", name="NVIDIA H200", multi_processor_count=66)
        self.cuda = SimpleNamespace(
            get_device_properties=lambda _: properties,
            mem_get_info=lambda _: (20 << 30, 140 << 30),
        )

    def get_num_threads(self) -> int:
        """Of the CPU."""
        return 3


@pytest.fixture
def wrapper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Any]:
    """The class that vLLM has around a worker, in modules of its names."""

    class WorkerWrapperBase:
        def __init__(self, device: str) -> None:
            self.worker = Worker(device)

        def init_device(self) -> None:
            pass

        def initialize_from_config(self, blocks: int) -> int:
            self.worker.cache_config.num_gpu_blocks = blocks
            self.worker.model_runner.kv_caches = [
                _Tensor(1, 640),
                [_Tensor(1, 640), _Tensor(2, 64)],
            ]
            return blocks

    vllm = ModuleType("vllm")
    vllm.__version__ = "0.33.0"  # type: ignore[attr-defined]
    base = ModuleType("vllm.v1.worker.worker_base")
    base.WorkerWrapperBase = WorkerWrapperBase  # type: ignore[attr-defined]
    parents = {name: ModuleType(name) for name in ("vllm.v1", "vllm.v1.worker")}
    for name, module in {"vllm": vllm, "torch": Torch(), base.__name__: base, **parents}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv(REPORTS_VARIABLE, str(tmp_path))
    return WorkerWrapperBase


def reported(folder: Path) -> dict[str, Any]:
    """The only report in the folder."""
    (path,) = folder.iterdir()
    assert path.name == f"{os.getpid()}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return loaded


def test_a_gpu_is_told_as_the_process_sees_it(wrapper: type[Any], tmp_path: Path) -> None:
    """SMs, memory and UUID are those of the worker's own CUDA context, privately written."""
    register()
    wrapper("cuda").init_device()
    seen = reported(tmp_path)
    assert (seen["pid"], seen["engine"], seen["engine_version"]) == (os.getpid(), "vllm", "0.33.0")
    assert (seen["uuid"], seen["sm_count"], seen["name"]) == ("abcd", 66, "NVIDIA H200")
    assert (seen["free_bytes"], seen["total_bytes"]) == (20 << 30, 140 << 30)


def test_the_kv_cache_is_counted_by_storage(wrapper: type[Any], tmp_path: Path) -> None:
    """The second report adds the cache to the first; layers in one storage count once."""
    register()
    register()  # vLLM may call it again in a forked process
    engine = wrapper("cpu")
    engine.init_device()
    assert engine.initialize_from_config(7) == 7
    seen = reported(tmp_path)
    assert (seen["kv_cache_bytes"], seen["kv_cache_blocks"]) == (704, 7)
    assert seen["kv_cache_tokens"] == 7 * 16
    assert seen["cpus"] == sorted(os.sched_getaffinity(0))
    assert seen["compute_threads"] == 3
    assert "sm_count" not in seen


def test_a_forked_engine_reports_as_itself(wrapper: type[Any], tmp_path: Path) -> None:
    """An engine that was forked has the change already, and signs with its own pid."""
    register()
    child = os.fork()
    if child == 0:
        try:
            wrapper("cpu").init_device()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert [path.name for path in tmp_path.iterdir()] == [f"{child}.json"]


def test_a_report_that_fails_leaves_the_engine_running(
    wrapper: type[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder that is gone costs the report and a line in the log, not the server."""
    register()
    engine = wrapper("cpu")
    tmp_path.rmdir()
    engine.init_device()
    assert "share is not reported" in caplog.text


def test_an_unknown_vllm_is_told_and_left_running(
    wrapper: type[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A vLLM whose workers are built otherwise starts as it would have, and says so."""
    monkeypatch.delattr(wrapper, "initialize_from_config")
    register()
    assert "will not be reported" in caplog.text


def test_nothing_is_changed_unless_asked(
    wrapper: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the variable the plugin does nothing at all."""
    monkeypatch.delenv(REPORTS_VARIABLE)
    before = wrapper.init_device
    register()
    assert wrapper.init_device is before
