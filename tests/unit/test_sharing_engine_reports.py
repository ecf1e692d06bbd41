"""The reports of engines, against the slots and command lines they were started with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairshare.errors import PartitionError
from fairshare.sharing.engine_reports import engine_reports, verify_cpu_engine
from fairshare.sharing.plan import ServerView, Slot

SLOT = Slot(name="chat", tenants=("chat",), model="m", cpu_set=(0,), threads=1)
MIB = 1024**2


def report(folder: Path, pid: int, **seen: Any) -> None:
    """A report as the plugin writes it."""
    (folder / f"{pid}.json").write_text(json.dumps({"pid": pid, **seen}), "utf-8")


def test_an_engine_within_its_share_is_verified(tmp_path: Path) -> None:
    """Fewer bytes than the limit (whole blocks) and the planned threads are the share."""
    report(tmp_path, 11, compute_threads=1, kv_cache_bytes=127 * MIB)
    seen = verify_cpu_engine(SLOT, ServerView([10, 11], tmp_path, kv_bytes=128 * MIB))
    assert seen["pid"] == 11


@pytest.mark.parametrize(
    ("seen", "evidence"),
    [
        ({"kv_cache_bytes": 1024 * MIB}, "KV cache: planned 128 MiB, has 1 GiB"),
        ({}, "KV cache: planned 128 MiB, not told"),
        ({"kv_cache_bytes": MIB, "compute_threads": 4}, "compute threads: planned 1, has 4"),
        ({"kv_cache_bytes": MIB, "compute_threads": 0}, "compute threads: planned 1, has 0"),
        ({"kv_cache_bytes": MIB, "compute_threads": None}, "compute threads: planned 1, has None"),
    ],
)
def test_an_engine_beyond_its_share_is_found_out(
    tmp_path: Path, seen: dict[str, Any], evidence: str
) -> None:
    """More cache, more or fewer threads than planned, or silence on them, are told by number."""
    report(tmp_path, 11, **{"compute_threads": 1, **seen})
    with pytest.raises(PartitionError) as caught:
        verify_cpu_engine(SLOT, ServerView([11], tmp_path, kv_bytes=128 * MIB))
    assert caught.value.evidence == (evidence,)
    assert "VLLM_CPU_KVCACHE_SPACE" in str(caught.value)


def test_without_a_limit_the_cache_is_not_compared(tmp_path: Path) -> None:
    """A launcher that states no cache has none to keep."""
    report(tmp_path, 11, compute_threads=1)
    assert verify_cpu_engine(SLOT, ServerView([11], tmp_path))


def test_an_engine_that_does_not_report_is_not_verified(tmp_path: Path) -> None:
    """No report, a broken one, and one of a process that is not the server's are no evidence."""
    report(tmp_path, 99, compute_threads=1)
    (tmp_path / "10.json").write_text("{", "utf-8")
    with pytest.raises(PartitionError, match="did not report its share") as caught:
        engine_reports(SLOT, ServerView([10, 11], tmp_path))
    assert "VLLM_PLUGINS" in (caught.value.hint or "")
